"""A run folder whose pairs stage has come to its end, without the stages before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from music_ray.generate.card import CardFacts, dataset_card
from music_ray.generate.pairs import music_pair
from music_ray.generate.staging import PartWriter, StagedFolder
from music_ray.rundir import RunDir, digest_ids
from music_ray.schema import PAIR_SCHEMA, SEED_SCHEMA, Rollout, SeedContext, to_table


def finish_pairs(run: RunDir, rollouts: Sequence[Rollout]) -> None:
    """Writes seeds/contexts, and pairs/ with every rollout accepted, and the manifest's record of it."""
    contexts = [
        SeedContext(one.id, one.source, f"d-{one.id}", one.conversation, one.context) for one in rollouts
    ]
    run.write_table(to_table(contexts, SEED_SCHEMA), "seeds", "contexts", "part-00000.parquet")
    run.open()
    run.start_stage("pairs")
    facts = CardFacts()
    with StagedFolder(run, "pairs", owned=("train-*.parquet", "gates.jsonl", "README.md")) as folder:
        writer = PartWriter(folder, PAIR_SCHEMA, num_rows=len(rollouts))
        for rollout in rollouts:
            facts.count_rollout(rollout)
            row = asdict(music_pair(rollout))
            facts.count_pair(row)
            writer.add(row)
        writer.close()
        folder.write_text("", "gates.jsonl")
        folder.write_text(dataset_card(run.config, facts, len(rollouts), {}), "README.md")
        folder.publish()
    run.finish_stage("pairs", digest_ids([str(one) for one in rollouts]), 1.0)
