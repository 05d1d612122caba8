"""The model card: README.md of the exported folder, as the Hugging Face hub reads it.

Names of sources, models and licences are data and stand in code spans that they can't leave. Places on
the author's machines are left out. The scores stand in a section that the evaluation fills in later.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from music_ray import __version__
from music_ray.config import LossConfig, RunConfig, SourceConfig, TrainConfig
from music_ray.markdown import code, front_matter, table
from music_ray.public import without_places
from music_ray.reward.data import PairTokens
from music_ray.reward.logbook import EVALUATIONS, read_log
from music_ray.rundir import RunDir
from music_ray.score_section import score_section

_SOURCES_SHOWN = 50
_EVALUATIONS_SHOWN = 10
_STEPS_AVERAGED = 20
_UNKNOWN = "unknown"


def model_card(run: RunDir, pairs: PairTokens, *, soft_capped: bool) -> str:
    """The card as Markdown with YAML front matter, from the run folder as it is after the last step.

    Args:
        pairs: what the model was trained on.
        soft_capped: the model soft-caps its attention logits, which transformers' default attention,
            sdpa, ignores without a word.
    """
    sections = [
        _front_matter(run.config),
        _what_it_is(run.config),
        _use(soft_capped=soft_capped),
        score_section(None),
        _data(run, pairs),
        _recipe(run.config),
        _course(read_log(run)),
        _evaluations(read_log(run, EVALUATIONS)),
        _LIMITS,
    ]
    return "\n\n".join(section.strip("\n") for section in sections if section) + "\n"


def _front_matter(config: RunConfig) -> str:
    datasets = list(dict.fromkeys(source.hub for source in config.data.sources if source.hub))
    return front_matter(
        {
            "base_model": without_places(config.train.base_model),
            "library_name": "transformers",
            "pipeline_tag": "text-classification",
            "tags": ["reward-model", "music_ray"],
            **({"datasets": datasets} if datasets else {}),
        }
    )


def _what_it_is(config: RunConfig) -> str:
    music = (
        ", among them pairs by Multi-Step Instruction Contrast (MUSIC, arXiv\n2512.24693) that differ over "
        "several turns"
        if config.mix.include_music
        else ""
    )
    return (
        f"# {code(config.name)}: a reward model by music_ray {__version__}\n\n"
        "Gives a conversation one number: the higher, the better its replies. Trained with the\n"
        f"Bradley-Terry loss on preference pairs{music}.\n"
        "Only differences between conversations with the same user have a meaning."
    )


def _use(*, soft_capped: bool) -> str:
    argument = ', attn_implementation="eager"' if soft_capped else ""
    return f"""\
## How to use it

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER{argument})
    ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    reward = model(**ids).logits[0, 0].item()

The reward is read off the last token of the rendered conversation; the padding token never ends one."""


# -- data ------------------------------------------------------------------------------------------


def _data(run: RunDir, pairs: PairTokens) -> str:
    counts = Counter(zip(pairs.origins, pairs.sources, strict=True))
    licences = _licences(run)
    shown = sorted(counts.most_common(_SOURCES_SHOWN))
    rows = [
        [code(origin), code(source), f"{count:,}", _listed(licences.get(source, {_UNKNOWN}))]
        for (origin, source), count in shown
    ]
    origins = Counter(pairs.origins)
    total = ", ".join(f"{count:,} of {code(origin)}" for origin, count in sorted(origins.items()))
    lines = [
        "## Data",
        "",
        f"Trained on {len(pairs):,} pairs: {total}. `D` is the preference set; a pair of",
        "`D_MUSIC` begins as a conversation of the source and was written on by a model.",
        "",
        table(["Origin", "Source", "Pairs", "Licence"], rows),
        "",
    ]
    if left_out := len(counts) - len(shown):
        lines += [f"{left_out} smaller sources are not listed.", ""]
    lines.append(
        "The licences are what the rows or the configuration say; nobody has checked them for you. The\n"
        "models that wrote on may have terms of their own."
    )
    return "\n".join(lines)


def _licences(run: RunDir) -> dict[str, set[str]]:
    """Licences by source, as the seeds stage has noted them: a row's own word, else the configuration's."""
    sources = run.config.data.sources
    found: dict[str, set[str]] = {}
    for one in run.manifest()["stages"].get("seeds", {}).get("licences", []):
        index = one["read_from"]
        named = one["licence"] or (_configured(sources[index]) if index < len(sources) else "")
        found.setdefault(one["source"], set()).add(named or _UNKNOWN)
    return found


def _configured(source: SourceConfig) -> str:
    # The package's own conversations are under the package's licence.
    return source.licence or ("apache-2.0" if source.path == "sample" else "")


def _listed(licences: set[str]) -> str:
    return ", ".join(code(one) if one != _UNKNOWN else one for one in sorted(licences))


# -- training --------------------------------------------------------------------------------------


def _recipe(config: RunConfig) -> str:
    train = config.train
    layers = f" (first {train.num_layers} layers)" if train.num_layers else ""
    revision = f", revision {code(train.revision)}" if train.revision else ""
    rows = [
        ["base model", code(without_places(train.base_model)) + revision + layers],
        ["loss", _loss(train.loss)],
        ["steps × pairs a step", f"{train.steps:,} × {train.pairs_per_step}"],
        ["exported", _exported(train)],
        [
            "learning rate",
            f"{train.learning_rate:g} ({train.lr_schedule}, {train.warmup_steps} warm-up steps)",
        ],
        ["AdamW", f"betas {train.adam_betas[0]:g} and {train.adam_betas[1]:g}, decay {train.weight_decay:g}"],
        ["longest conversation", f"{train.max_tokens:,} tokens (over-long pairs: {train.over_length})"],
        ["precision", f"{train.precision}, float32 master weights"],
        ["adapters", f"LoRA, rank {train.lora.rank}, merged" if train.lora else "none, all weights trained"],
        ["run seed", str(config.seed)],
    ]
    if train.mix_weights:
        weights = ", ".join(f"{code(origin)} {weight:g}" for origin, weight in train.mix_weights.items())
        rows.insert(2, ["weights of the mix", weights])
    return "## Recipe\n\n" + table(["", ""], rows)


def _loss(loss: LossConfig) -> str:
    options = [
        "with the pairs' margins" if loss.margin else "",
        f"label smoothing {loss.label_smoothing:g}" if loss.label_smoothing else "",
        f"centring {loss.centring:g}" if loss.centring else "",
    ]
    return ", ".join(["Bradley-Terry", *(one for one in options if one)])


def _exported(train: TrainConfig) -> str:
    if train.export == "last":
        return "the weights after the last step"
    return f"the checkpoint that is best by {train.best_by} on held-out pairs"


def _course(lines: list[dict[str, Any]]) -> str:
    """How the training began and ended: means over some steps, for one step's batch says little."""
    if not lines:
        return ""
    number = min(_STEPS_AVERAGED, max(1, len(lines) // 2))
    rows = [
        [f"{part[0]['step']:,} to {part[-1]['step']:,}", *(_mean(part, key) for key in _COURSE)]
        for part in (lines[:number], lines[-number:])
    ]
    return (
        "## The course of the training\n\nMeans over training pairs before they were learned from:\n\n"
        + table(["Steps", "Loss", "Accuracy", "Margin"], rows if len(lines) > 1 else rows[:1])
    )


_COURSE = ("loss", "accuracy", "margin")


def _mean(lines: list[dict[str, Any]], key: str) -> str:
    return f"{sum(line[key] for line in lines) / len(lines):.4f}"


def _evaluations(lines: list[dict[str, Any]]) -> str:
    """The evaluations on held-out pairs while training: the last ones, and the best if it is older."""
    shown = lines[-_EVALUATIONS_SHOWN:]
    best = [line for line in lines if line.get("best")][-1:]
    shown = [*(line for line in best if line not in shown), *shown]
    rows = [
        [
            f"{line['step']:,}{' (best)' if line in best else ''}",
            code(suite),
            f"{found['num_pairs']:,}",
            f"{found['accuracy']:.3f}",
            f"{found['loss']:.4f}",
            f"{found['margin']:+.3f}",
        ]
        for line in shown
        for suite, found in line["suites"].items()
    ]
    if not rows:
        return ""
    head = ["Step", "Held-out pairs", "Number", "Accuracy", "Loss", "Margin"]
    return "## Evaluations while training\n\n" + table(head, rows)


_LIMITS = """
## Limits

A reward is a guess at a preference: it inherits the sources' faults, and a model that is trained to raise it
will find what it misjudges. Compare with people's judgements before relying on it.
"""
