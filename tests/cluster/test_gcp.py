"""The Google Cloud file: what must hold of every node, and Compute Engine's description of an instance."""

import json

import pytest

from tests.cluster.files import GROUPS, rendered

CONFIG = rendered("gcp.yaml")
NODES = {group: node["node_config"] for group, node in CONFIG["available_node_types"].items()}


def test_spot_and_on_demand_are_where_they_belong() -> None:
    models = {
        group: node.get("scheduling", {}).get("provisioningModel", "STANDARD")
        for group, node in NODES.items()
    }
    assert models == {"head": "STANDARD", "cpu": "STANDARD", "generation": "SPOT", "training": "STANDARD"}
    assert NODES["generation"]["scheduling"]["instanceTerminationAction"] == "DELETE"


def test_machines_with_gpus_do_not_ask_to_be_moved() -> None:
    """Compute Engine refuses an instance with GPUs that would be migrated, which is its default."""
    for group in ("generation", "training"):
        assert NODES[group]["scheduling"]["onHostMaintenance"] == "TERMINATE"


def test_every_interface_is_private_and_fast_and_training_nodes_stand_together() -> None:
    for group, node in NODES.items():
        (interface,) = node["networkInterfaces"]
        assert interface == {"subnetwork": interface["subnetwork"], "nicType": "GVNIC"}, group
    assert len(NODES["training"]["resourcePolicies"]) == 1
    assert not [group for group in ("head", "cpu", "generation") if "resourcePolicies" in NODES[group]]


def test_disks_go_with_their_node() -> None:
    for group, node in NODES.items():
        (disk,) = node["disks"]
        assert disk["boot"] and disk["autoDelete"], group


@pytest.mark.parametrize("group", ["head", *GROUPS])
def test_compute_engine_takes_every_key_of_a_node(group) -> None:
    """By the description that Google's client library carries; `ray up` on GCP needs that library too."""
    cache = pytest.importorskip(
        "googleapiclient.discovery_cache", reason="google-api-python-client is not there"
    )
    schemas = json.loads(cache.get_static_doc("compute", "v1"))["schemas"]
    assert _strange(NODES[group], {"$ref": "Instance"}, schemas) == []
    assert _strange(NODES[group] | {"disk": []}, {"$ref": "Instance"}, schemas) == ["disk"]  # it does look


def _strange(value, schema, schemas, path="") -> list[str]:
    """Places where a value is not what the interface describes."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if schema["type"] == "object" and "properties" in schema:
        if not isinstance(value, dict):
            return [path]
        found = []
        for key, inner in value.items():
            place = f"{path}.{key}".removeprefix(".")
            known = schema["properties"].get(key)
            found += [place] if known is None else _strange(inner, known, schemas, place)
        return found
    if schema["type"] == "array":
        if not isinstance(value, list):
            return [path]
        return [one for item in value for one in _strange(item, schema["items"], schemas, path)]
    kinds = {"string": str | int, "boolean": bool, "integer": int, "number": float | int, "object": dict}
    wrong = not isinstance(value, kinds[schema["type"]]) or ("enum" in schema and value not in schema["enum"])
    return [path] if wrong else []
