"""The train stage: a Bradley-Terry reward model by Ray Train and DeepSpeed ZeRO-3.

    data → order → loop (zero3, loss, checkpoint) → export, assembled by train.run_train

Nothing here knows how the pairs of the mix were made.
"""
