"""The quality gates: why a rollout that ended well is still no training pair.

Most gates look at generated messages alone: what the seed brought along is D's business, but for
eval_overlap, whose business is just that. They are pure functions of one rollout, so changed gates rerun
from the pairs stage only; near_duplicate looks at all of them together (docs/reference/quality-gates.md).
"""

from music_ray.generate.gates.base import Refusal
from music_ray.generate.gates.jury import Jury
from music_ray.generate.gates.messages import find_loop
from music_ray.generate.gates.panel import first_refusal

__all__ = ["Jury", "Refusal", "find_loop", "first_refusal"]
