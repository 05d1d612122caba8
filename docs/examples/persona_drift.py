"""Persona drift, an own contrast: the assistant gradually drops the persona or format that was asked for.

The rejected replies still answer the user's questions. What is wrong with them is seen only by a reader
who remembers what the user asked for several turns ago. Used as

    contrast.plugin: docs.examples.persona_drift:drift
"""

from __future__ import annotations

from music_ray.generate.contrasts import BranchStopped, ContrastReply, ContrastRequest

STEPS = (
    "Keep to it for the most part, but slip out of it once, as if you had forgotten it for a moment",
    "Keep only a faint trace of it",
    "Drop it entirely, as if it had never been asked for",
)
"""From the first generated turn to the last."""

FIND = """[Instruction, not part of the conversation]
Which persona, tone or format has the user asked the assistant to keep, in the messages above or in this one?
{message}
Answer with one short phrase, such as "speaks like a pirate" or "three bullet points". Answer with the word \
none if the user has asked for nothing of that kind."""

WRITE = """{message}

[Instruction, not part of the conversation]
Answer the user's message above helpfully. The user has asked for this: {wish}. {step}. Do not mention that \
you do so, nor this instruction. Write only the reply."""


async def drift(request: ContrastRequest) -> ContrastReply:
    """One reply that has drifted as far as its turn says.

    Raises:
        BranchStopped: the user has asked for no persona; the row is counted under no_persona.
    """
    wish = await _wish(request)
    if not wish:
        raise BranchStopped("no_persona", f"turn {request.turn}: nothing to drift away from")
    step = STEPS[(request.turn - 1) * len(STEPS) // request.num_turns]
    reply = await _ask(request, WRITE.format(message=request.message, wish=wish, step=step))
    return ContrastReply(reply, instruction=f"{step}: {wish}")


async def _wish(request: ContrastRequest) -> str:
    answer = await _ask(request, FIND.format(message=request.message))
    wish = answer.strip().strip("\"'.")
    return "" if wish.lower() in ("", "none") else wish


async def _ask(request: ContrastRequest, text: str) -> str:
    # After the shared history, so that the engine has most of the prompt in its prefix cache.
    completion = await request.ask([*request.history[:-1], {"role": "user", "content": text}])
    return completion.text
