"""The files in infra/, each held against what reads it, or against keys that were looked up there.

docs/cluster.md says for each file what checks it and what was only reviewed.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

from mint_stream.serving.check import check_config

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
KUBERAY = INFRA / "kuberay"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_every_file_in_infra_has_a_line_in_the_table_of_checks() -> None:
    table = (ROOT / "docs" / "cluster.md").read_text().partition("## What checks these files")[2]
    for file in INFRA.rglob("*"):
        if file.is_file():
            assert f"`{file.relative_to(ROOT)}`" in table, f"nothing is said of {file}"


def test_nothing_in_infra_is_a_secret() -> None:
    for file in INFRA.rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN", text)


# The cluster launcher


def launcher() -> dict[str, Any]:
    return dict(read(INFRA / "aws" / "cluster.yaml"))


def test_ray_s_own_validator_takes_the_cluster_file() -> None:
    validate_config(prepare_config(launcher()))
    wrong = {**launcher(), "max_worker": 3}
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(wrong))


def test_ec2_takes_every_field_of_the_nodes() -> None:
    """`node_config` goes to RunInstances as it is; Ray's schema does not look into it."""
    model = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("RunInstances").input_shape
    types = launcher()["available_node_types"]
    assert set(types) == {"head", "gpu", "cpu"}
    for node in types.values():
        request = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        errors = botocore.validate.ParamValidator().validate(request, shape)
        assert not errors.has_errors(), errors.generate_report()
        assert node["node_config"]["InstanceType"] in shape.members["InstanceType"].enum
        assert "InstanceMarketOptions" in node["node_config"] or node is types["head"]
        ebs = node["node_config"]["BlockDeviceMappings"][0]["Ebs"]
        assert ebs["Encrypted"] is True
    assert types["cpu"]["min_workers"] == 0 < types["cpu"]["max_workers"]
    assert types["gpu"]["min_workers"] >= 1


# Rights


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((INFRA / "aws" / name).read_text())
    assert policy["Version"] == "2012-10-17"
    assert set(policy) == {"Version", "Statement"}
    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
    return list(policy["Statement"])


def many(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["policy-store.json", "policy-head.json"])
def test_no_policy_gives_more_than_it_says(name: str) -> None:
    sids = [statement["Sid"] for statement in statements(name)]
    assert len(sids) == len(set(sids))
    assert all(re.fullmatch(r"[A-Za-z0-9]+", sid) for sid in sids), "IAM takes letters and digits"
    for statement in statements(name):
        assert not any("*" in action for action in many(statement["Action"]))
        if "*" in many(statement["Resource"]):
            assert all(action.startswith("ec2:Describe") for action in many(statement["Action"]))
        assert all(r == "*" or r.startswith("arn:aws:") for r in many(statement["Resource"]))


def test_the_rights_on_ec2_are_operations_of_ec2() -> None:
    operations = botocore.session.get_session().get_service_model("ec2").operation_names
    actions = {a for s in statements("policy-head.json") for a in many(s["Action"])}
    assert {a.removeprefix("ec2:") for a in actions if a.startswith("ec2:")} <= set(operations)
    assert {a for a in actions if not a.startswith("ec2:")} == {"iam:PassRole"}


def test_the_head_may_start_what_the_cluster_file_asks_for() -> None:
    (start,) = (
        s for s in statements("policy-head.json") if s["Sid"] == "StartWorkersOfThisCluster"
    )
    cluster = launcher()
    kinds = [n["node_config"]["InstanceType"] for n in cluster["available_node_types"].values()][1:]
    assert start["Condition"]["StringLike"]["ec2:InstanceType"] == kinds
    tag = start["Condition"]["StringEquals"]["aws:RequestTag/ray-cluster-name"]
    assert tag == cluster["cluster_name"]
    region = cluster["provider"]["region"]
    resources = [r for s in statements("policy-head.json") for r in many(s["Resource"])]
    assert all(f":{region}:" in r for r in resources if r.startswith("arn:aws:ec2"))


# KubeRay: the pods by Kubernetes' own schema, the rest by the keys that KubeRay's CRDs have.

CLUSTER_KEYS = {
    "authOptions": {"mode", "secretName", "enableK8sTokenAuth"},
    "autoscalerOptions": {
        *("env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources"),
        *("securityContext", "upscalingMode", "version", "volumeMounts"),
    },
    "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": set[str](),
    "headGroupSpec": {
        *("enableIngress", "headService", "ingressOptions", "labels", "rayStartParams"),
        *("resources", "serviceType", "template"),
    },
    "headServiceAnnotations": set[str](),
    "managedBy": str,
    "networkPolicy": set[str](),
    "rayVersion": str,
    "suspend": bool,
    "upgradeStrategy": set[str](),
    "workerGroupSpecs": {
        *("groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts"),
        *("priority", "rayStartParams", "replicas", "resources", "scaleStrategy", "suspend"),
        "template",
    },
}
KEYS: dict[str, dict[str, Any]] = {
    "RayCluster": CLUSTER_KEYS,
    "RayJob": {
        **dict.fromkeys(("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"), int),
        **dict.fromkeys(("entrypoint", "jobId", "runtimeEnvYAML", "submissionMode"), str),
        **dict.fromkeys(("shutdownAfterJobFinishes", "suspend"), bool),
        "submitterConfig": {"backoffLimit"},
        "rayClusterSpec": CLUSTER_KEYS,
    },
    "RayService": {
        "serveConfigV2": str,
        "upgradeStrategy": {"type", "clusterUpgradeOptions"},
        "rayClusterConfig": CLUSTER_KEYS,
    },
}


def unknown(content: Any, known: Any, where: str = "") -> Iterator[str]:
    """A line for each key that is not among `known`, or whose value is of another type."""
    if isinstance(known, type):
        if type(content) is not known:
            yield f"{where} is {content!r}"
    elif isinstance(known, set):
        for item in content if isinstance(content, list) else [content]:
            yield from (f"{where}.{key}" for key in item if key not in known)
    else:
        for key, value in content.items():
            if key not in known:
                yield f"{where}.{key}"
            else:
                yield from unknown(value, known[key], f"{where}.{key}")


def manifests() -> list[Path]:
    return sorted(KUBERAY.glob("ray-*.yaml"))


def cluster_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    return dict(spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec)


def groups(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(manifest)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.stem)
def test_kuberay_knows_every_field(path: Path) -> None:
    manifest = read(path)
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert manifest["apiVersion"] == "ray.io/v1"
    assert not [*unknown(manifest["spec"], KEYS[manifest["kind"]], manifest["kind"])]
    wrong = {**manifest["spec"], "shutDownAfterJobFinishes": True}
    assert [*unknown(wrong, KEYS[manifest["kind"]])]


@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.stem)
def test_kubernetes_takes_every_pod(path: Path) -> None:
    for group in groups(read(path)):
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        pod["metadata"] = {**pod["metadata"], "name": "pod"}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_kubernetes_takes_the_service_account() -> None:
    account = read(KUBERAY / "service-account.yaml")
    kubernetes_validate.validate(account, kubernetes_validate.latest_version(), strict=True)


def test_the_pod_monitor_looks_where_the_pods_are() -> None:
    monitor = read(KUBERAY / "pod-monitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert set(monitor["spec"]) == {"selector", "podMetricsEndpoints"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for path in manifests():
        for group in groups(read(path)):
            labels = group["template"]["metadata"]["labels"]
            assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
            (container,) = group["template"]["spec"]["containers"]
            assert endpoint["port"] in {port["name"] for port in container["ports"]}


@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.stem)
def test_pods_hold_no_secret_no_root_and_may_go_at_any_time(path: Path) -> None:
    manifest = read(path)
    assert cluster_of(manifest)["authOptions"] == {"mode": "token"}
    assert cluster_of(manifest)["rayVersion"] == pins()["ray"]
    head, *workers = groups(manifest)
    for group in (head, *workers):
        (container,) = group["template"]["spec"]["containers"]
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["runAsUser"] == uid_of_the_image()
        for variable in container["env"]:
            secret = re.search(r"KEY|TOKEN|SECRET", variable["name"])
            assert ("value" in variable) == (secret is None and "valueFrom" not in variable)
            assert not secret or "secretKeyRef" in variable["valueFrom"]
        assert "volumes" not in group["template"]["spec"], "what lasts lies in object storage"
    assert "nodeSelector" not in head["template"]["spec"], "the head is not for spot machines"
    for worker in workers:
        assert worker["template"]["spec"]["nodeSelector"]["karpenter.sh/capacity-type"] == "spot"
        assert worker["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_the_job_drains_and_labels_with_as_many_gpus_as_there_are() -> None:
    manifest = read(KUBERAY / "ray-job.yaml")
    env = yaml.safe_load(manifest["spec"]["runtimeEnvYAML"])
    assert env == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}
    labelers = re.search(r"--num-labelers (\d+)", manifest["spec"]["entrypoint"])
    assert labelers is not None
    (gpu,) = (g for g in groups(manifest) if g.get("groupName") == "gpu")
    assert gpu["minReplicas"] == int(labelers.group(1))
    assert manifest["spec"]["entrypoint"].startswith("python /app/pipelines/label_stream.py")


def test_serve_takes_the_configuration_of_the_service(tmp_path: Path) -> None:
    manifest = read(KUBERAY / "ray-service.yaml")
    file = tmp_path / "serve.yaml"
    file.write_text(manifest["spec"]["serveConfigV2"])
    check_config(file)
    (application,) = read(file)["applications"]
    assert application["args"]["require_token"] is True


def test_job_and_service_name_the_same_real_model() -> None:
    job = read(KUBERAY / "ray-job.yaml")["spec"]["entrypoint"].split()
    named = {job[job.index("--model") + 1]: job[job.index("--weights") + 1]}
    assert named == {"ViT-B-16": "laion2b_s34b_b88k"}
    service = yaml.safe_load(read(KUBERAY / "ray-service.yaml")["spec"]["serveConfigV2"])
    for served in (service, read(INFRA / "serve.yaml")):
        (application,) = served["applications"]
        args = application["args"]
        assert {args["model"]: args["weights"]} == named
        assert args["labels"] == job[job.index("--labels") + 1]


# The image


def pins() -> dict[str, str]:
    lines = (INFRA / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    return {name.lower(): version for name, version in pinned.items()}


def uid_of_the_image() -> int:
    found = re.search(r"^USER (\d+)$", (INFRA / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


def test_the_image_s_pins_are_within_pyproject_s_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        needed = Requirement(line)
        name = needed.name.lower().replace("_", "-")
        assert pins()[name] in needed.specifier, f"{name}: {pins()[name]} against {needed}"


def test_the_image_holds_all_that_its_packages_need() -> None:
    """As what is installed here says: the image is built with pins alone (`--no-deps`)."""
    for name in pins():
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of the CUDA build of torch: not on every machine
        for line in requires:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert needed.name.lower().replace("_", "-") in pins(), f"{name} needs {line}"


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(
        ["hadolint", INFRA / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_copies_what_is_there_and_not_as_root() -> None:
    text = (INFRA / "Dockerfile").read_text()
    assert re.search(r"^FROM nvidia/cuda:[\d.]+-base-ubuntu[\d.]+$", text, re.MULTILINE)
    assert uid_of_the_image() > 0
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "**"
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    for line in re.findall(r"^COPY --chown=\d+ (.*) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed)
