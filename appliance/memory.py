"""Which plan a start takes after memory ran out. Pure.

A fixed ladder of contexts, until the memory plan computes what fits.
"""

from appliance.settings import Settings

CONTEXTS = (49_152, 32_768, 16_384)  # tokens; a shorter one needs less KV cache
RUNGS = len(CONTEXTS)


def safer(settings: Settings, rung: int) -> Settings:
    """Return the settings of a start after ``rung`` deaths for want of memory.

    Rung 0 is what was chosen; each further one caps the context at the ladder's next step.
    """
    if rung == 0:
        return settings
    context = CONTEXTS[min(rung, RUNGS - 1)]
    chosen = settings.max_model_len
    capped = context if chosen is None else min(chosen, context)
    return settings.model_copy(update={"max_model_len": capped})
