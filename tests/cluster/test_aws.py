"""The AWS file against EC2's own interface: botocore's model, the catalogue of machines, and a server."""

import copy
import os

import pytest
import yaml

from tests.aws_server import KEYS, aws_server
from tests.cluster.files import CLUSTER, GROUPS, rendered, script

render = script("render")
NODE_TYPES = rendered("aws.yaml")["available_node_types"]


@pytest.mark.parametrize("group", ["head", *GROUPS])
def test_ec2_takes_every_key_of_a_node(group) -> None:
    import botocore.session
    from botocore.validate import ParamValidator

    ec2 = botocore.session.get_session().get_service_model("ec2")
    wanted = dict(NODE_TYPES[group]["node_config"])
    subnets = wanted.pop("SubnetIds", None)  # Ray's own: it tries one after the other
    if subnets:
        wanted["SubnetId"] = subnets[0]
    wanted |= {"MinCount": 1, "MaxCount": 1}
    shape = ec2.operation_model("RunInstances").input_shape
    report = ParamValidator().validate(wanted, shape)
    assert not report.has_errors(), report.generate_report()
    wanted["InstanceMarket"] = {}
    assert ParamValidator().validate(wanted, shape).has_errors()  # it does look


def test_spot_and_on_demand_are_where_they_belong() -> None:
    spot = {group for group, node in NODE_TYPES.items() if "InstanceMarketOptions" in node["node_config"]}
    assert spot == {"generation"}
    assert NODE_TYPES["generation"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_training_nodes_stand_together_and_reach_each_other_by_efa() -> None:
    node = NODE_TYPES["training"]
    interfaces = node["node_config"]["NetworkInterfaces"]
    assert node["node_config"]["Placement"] == {"GroupName": "music-ray-training"}
    assert {one["InterfaceType"] for one in interfaces} == {"efa"}
    assert [one["NetworkCardIndex"] for one in interfaces] == list(range(len(interfaces)))
    assert [one["DeviceIndex"] for one in interfaces] == [0] + [1] * (len(interfaces) - 1)
    assert len({(one["SubnetId"], *one["Groups"]) for one in interfaces}) == 1
    assert {"--device /dev/infiniband", "--env FI_PROVIDER=efa"} <= set(node["docker"]["worker_run_options"])
    assert "--ulimit memlock=-1:-1" in rendered("aws.yaml")["docker"]["run_options"]


def test_disks_are_encrypted_and_go_with_their_node_and_metadata_asks_for_a_session() -> None:
    for group, node in NODE_TYPES.items():
        for device in node["node_config"]["BlockDeviceMappings"]:
            assert device["Ebs"]["Encrypted"] and device["Ebs"]["DeleteOnTermination"], group
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required", group


@pytest.fixture
def account(tmp_path, monkeypatch):
    """A real server that speaks EC2 and IAM, on 127.0.0.1, and an AWS account in it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with aws_server() as port:
        for name, value in {
            **KEYS,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "us-west-2",
            "HOME": str(tmp_path),  # Ray writes the key that it makes into ~/.ssh
        }.items():
            monkeypatch.setenv(name, value)
        yield


def test_rays_aws_provider_starts_a_node_of_every_kind(account) -> None:
    """`ray up` without machines: its own roads from the file to EC2's answer."""
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    ec2 = boto3.client("ec2")
    config = prepare_config(_for(ec2, boto3.client("iam")))
    validate_config(config)
    groups_before = {one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]}
    profiles_before = len(boto3.client("iam").list_instance_profiles()["InstanceProfiles"])
    config = AWSNodeProvider.fillout_available_node_types_resources(AWSNodeProvider.bootstrap_config(config))

    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    kinds = {}
    for group, node in config["available_node_types"].items():
        tags = {"ray-node-type": "worker", "ray-user-node-type": group, "ray-node-name": group}
        (started,) = provider.create_node(node["node_config"], tags, 1).values()
        (kinds[group],) = ec2.describe_instances(InstanceIds=[started.id])["Reservations"][0]["Instances"]

    assert {group: one["InstanceType"] for group, one in kinds.items()} == {
        "head": "m7i.2xlarge",
        "cpu": "m7i.2xlarge",
        "generation": "g6e.2xlarge",
        "training": "p4de.24xlarge",
    }
    assert {group for group, one in kinds.items() if one.get("InstanceLifecycle") == "spot"} == {"generation"}
    # Ray opens ssh to the whole internet in a security group that it makes itself, and gives a role that it
    # makes the right to everything in EC2 and S3: it must find that there is nothing to make.
    assert {one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]} == groups_before
    assert len(boto3.client("iam").list_instance_profiles()["InstanceProfiles"]) == profiles_before
    assert boto3.client("iam").list_roles()["Roles"] == []


def test_what_ray_is_told_about_a_node_is_what_the_machine_has(account) -> None:
    """CPUs and GPUs beside EC2's catalogue, and as many EFA interfaces as there are network cards."""
    import boto3

    ec2 = boto3.client("ec2")
    for group, node in NODE_TYPES.items():
        kind = node["node_config"]["InstanceType"]
        (facts,) = ec2.describe_instance_types(InstanceTypes=[kind])["InstanceTypes"]
        gpus = sum(one["Count"] for one in facts.get("GpuInfo", {}).get("Gpus", []))
        assert node["resources"].get("GPU", 0) == gpus, group
        assert node["resources"]["CPU"] < facts["VCpuInfo"]["DefaultVCpus"], group
        market = node["node_config"].get("InstanceMarketOptions", {"MarketType": "on-demand"})
        assert market["MarketType"] in facts["SupportedUsageClasses"], group
        if interfaces := node["node_config"].get("NetworkInterfaces"):
            assert len(interfaces) == facts["NetworkInfo"]["EfaInfo"]["MaximumEfaInterfaces"], group
            assert "cluster" in facts["PlacementGroupInfo"]["SupportedStrategies"]


def _for(ec2, iam):
    """The file as it is rendered for what this account has."""
    subnets = ec2.describe_subnets()["Subnets"]
    parameters = copy.deepcopy(render.load_parameters(CLUSTER / "parameters.yaml"))
    aws = parameters["aws"]
    aws["subnets"] = [one["SubnetId"] for one in subnets[:2]]
    aws["security_group"] = ec2.create_security_group(
        GroupName="closed", Description="nothing from outside", VpcId=subnets[0]["VpcId"]
    )["GroupId"]
    aws["image"] = ec2.describe_images()["Images"][0]["ImageId"]
    for profile in (aws["head_profile"], aws["worker_profile"]):
        iam.create_instance_profile(InstanceProfileName=profile)
    return yaml.safe_load(render.render(parameters)["aws.yaml"])
