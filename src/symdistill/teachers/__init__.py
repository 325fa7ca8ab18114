"""Teachers: language models that can be asked. Here: models on this machine."""

from symdistill.teachers.local import LocalTeacher, LogProb, Sample, SampleRequest, Sampling

__all__ = ["LocalTeacher", "LogProb", "Sample", "SampleRequest", "Sampling"]
