"""How much fits on nodes of which kinds, and what an autoscaler's file says that may be added."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray import capacity
from music_ray.capacity import NodeGroup, fit_beside_a_cpu, how_many_fit, nodes_of, totals

FILE = """
cluster_name: c
max_workers: 9
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0, memory: 8}, max_workers: 0}
  generation: {resources: {CPU: 8, GPU: 1}, max_workers: 4, labels: {music-ray/group: generation}}
  training: {resources: {CPU: 96, GPU: 8}, min_workers: 0, max_workers: 20}
  never: {resources: {CPU: 4}, max_workers: 0}
"""


def test_parts_are_not_spread_over_nodes() -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 3.0}, {"CPU": 16.0, "GPU": 2.0}]
    assert how_many_fit({"CPU": 2.0}, nodes, 99) == 2 + 1 + 8
    assert how_many_fit({"CPU": 2.0, "GPU": 1.0}, nodes, 99) == 1 + 0 + 2
    assert how_many_fit({"CPU": 0.0, "GPU": 3.0}, nodes, 99) == 0
    assert how_many_fit({"CPU": 0.1}, [{"CPU": 0.3}], 99) == 3
    assert how_many_fit({"CPU": 1.0}, nodes, 5) == 5


def test_the_cpu_that_stays_free_is_taken_where_it_hurts_least() -> None:
    assert fit_beside_a_cpu({"CPU": 2.0}, [{"CPU": 4.0}, {"CPU": 3.0}], 99) == 3
    assert fit_beside_a_cpu({"CPU": 2.0}, [{"CPU": 4.0}], 99) == 1
    assert fit_beside_a_cpu({"GPU": 1.0}, [{"CPU": 0.5, "GPU": 1.0}], 99) == 0


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5), each=st.integers(1, 4))
def test_a_free_cpu_costs_at_most_one_part(sizes: list[int], each: int) -> None:
    nodes = [{"CPU": float(size)} for size in sizes]
    whole, beside = (count({"CPU": float(each)}, nodes, 999) for count in (how_many_fit, fit_beside_a_cpu))
    assert beside <= whole == sum(size // each for size in sizes)
    assert beside >= whole - 1 or not any(sizes)


def test_an_autoscalers_file_says_what_it_may_start(tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.yaml"
    file.write_text(FILE)
    groups = capacity._groups_in(str(file))
    assert groups == [
        NodeGroup({"CPU": 0.0, "memory": 8.0}, 1, {}),
        NodeGroup({"CPU": 8.0, "GPU": 1.0}, 4, {"music-ray/group": "generation"}),
        NodeGroup({"CPU": 96.0, "GPU": 8.0}, 9, {}),
    ]
    assert totals(groups) == {"CPU": 4 * 8 + 9 * 96, "GPU": 4 + 9 * 8, "memory": 8}
    labelled = nodes_of(groups, {"music-ray/group": "generation"}, 3)
    assert labelled == [{"CPU": 8.0, "GPU": 1.0}] * 3


NO_RESOURCES = "{max_workers: 2, head_node_type: h, available_node_types: {h: {}, w: {node_config: {}}}}"


@pytest.mark.parametrize("text", ["", "a: [", "a: 1", "- 1", NO_RESOURCES])
def test_a_file_that_does_not_say_what_nodes_hold_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    assert capacity._groups_in(str(tmp_path / "file.yaml")) == []
    assert capacity._groups_in(str(tmp_path / "missing.yaml")) == []


def test_what_finds_no_node_is_said_once_with_its_number() -> None:
    from ray.core.generated.autoscaler_pb2 import ResourceRequest

    large, small = ({"GPU": 8.0, "CPU": 1.0}, {"CPU": 0.5})
    requests = [ResourceRequest(resources_bundle=bundle) for bundle in (large, small, large)]
    assert capacity._in_words(requests) == ["2 x (1 CPU, 8 GPU)", "1 x (0.5 CPU)"]
    assert capacity.Waiting("generate").news() == []  # not before a minute has gone
