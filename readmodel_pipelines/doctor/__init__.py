"""The doctor: looks at everything that a rebuild, a repair or a verification needs, and says what to do about the rest.

It writes nothing and starts nothing. `gather` reads facts, and nothing else here talks to a server; the other modules
judge them: pure functions from facts to a `Check`. No check is shown a credential.
"""

from readmodel_pipelines.doctor.check import Check, Diagnosis, Health
from readmodel_pipelines.doctor.examine import examine

__all__ = ["Check", "Diagnosis", "Health", "examine"]
