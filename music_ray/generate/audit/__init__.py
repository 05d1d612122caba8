"""The shortcut audit: can a linear model on surface features alone tell chosen from rejected?

If it can, a reward model can learn that instead of quality. `audit_pairs` measures a list of pairs,
`run.run_audit` a run folder.
"""

from music_ray.generate.audit.measure import audit_pairs
from music_ray.generate.audit.result import Audit

__all__ = ["Audit", "audit_pairs"]
