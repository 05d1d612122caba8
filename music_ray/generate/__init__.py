"""From the preference set D to the mix: seeds, rollouts, pairs and D joined with D_MUSIC."""
