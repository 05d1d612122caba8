"""The contrast: the rejected branch's reply answers another instruction than the user's.

    joint      one call returns the modified instruction and the reply to it
    two_step   one call writes the modified instruction, a clean call answers it
    direct     one call replies to something else; no instruction is recorded
    neighbour  the modified instruction is a similar message from the pool, a clean call answers it
    resample   the simulator draws another message at the same point, a clean call answers it
    (plugin)   a function that the user brings writes the reply as it likes

The history keeps only what the user really asked, so the wrongness stays in the conversation.
"""

from music_ray.generate.calls import BranchStopped
from music_ray.generate.contrasts.contraster import Contraster
from music_ray.generate.contrasts.plugin import ContrastReply, ContrastRequest

__all__ = ["BranchStopped", "ContrastReply", "ContrastRequest", "Contraster"]
