"""shim"""

from wisepatch.models.head import zeroshot_head as zeroshot_head


def check_prompts(clip, classes, templates):
    pass
