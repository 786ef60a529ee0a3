"""Files for clusters are what their programs read: checked offline, each against its own schema or linter."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hcl2
import jsonschema
import kubernetes_validate
import pytest
import ray.autoscaler
import yaml

from omnimill.infra.runs_folder import RUNS

DEPLOY = Path(__file__).parents[2] / "infra" / "deploy"
FIELDS = json.loads((Path(__file__).parent / "kuberay_fields.json").read_text())
KUBERNETES = "1.33"
# Where a Ray head lists what Prometheus is to ask; see tests/infra/test_cluster.py.
RAY_TARGETS = "/api/prometheus/sd"


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "on-premises.yaml"])
def test_launcher_files(name: str) -> None:
    config = yaml.safe_load((DEPLOY / name).read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    if "available_node_types" in config:
        assert config["head_node_type"] in config["available_node_types"]
        assert config["max_workers"] >= sum(
            one.get("max_workers", 0) for one in config["available_node_types"].values()
        )


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "on-premises.yaml"])
def test_runs_lie_on_a_disk_that_containers_share(name: str) -> None:
    options = yaml.safe_load((DEPLOY / name).read_text())["docker"]["run_options"]
    (runs,) = [one.partition(f"{RUNS}=")[2] for one in options if RUNS in one]
    (mounted,) = [one.removeprefix("-v ").split(":")[1] for one in options if one.startswith("-v ")]
    assert Path(runs).is_relative_to(mounted)


@pytest.mark.parametrize("path", sorted((DEPLOY / "kuberay").glob("*.yaml")), ids=lambda path: path.name)
def test_kuberay_manifests(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    assert manifest["apiVersion"] == "ray.io/v1"
    jsonschema.validate(manifest["spec"], {**FIELDS, "$ref": f"#/$defs/{manifest['kind']}"})
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert cluster["rayVersion"] == ray.__version__
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        mounts = [mount for one in pod["spec"]["containers"] for mount in one["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == {volume["name"] for volume in pod["spec"]["volumes"]}
        for one in pod["spec"]["containers"][0].get("env", ()):
            if one["name"] == RUNS:
                assert any(Path(one["value"]).is_relative_to(mount["mountPath"]) for mount in mounts)


def test_a_wrong_field_is_found() -> None:
    manifest = yaml.safe_load((DEPLOY / "kuberay" / "cluster.yaml").read_text())
    manifest["spec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(manifest["spec"], {**FIELDS, "$ref": "#/$defs/RayCluster"})


def test_compose_file() -> None:
    _check("check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "team" / "compose.yaml"))
    written = (DEPLOY / "team" / "compose.yaml").read_text()
    compose = yaml.safe_load(written)
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert {one["source"] for one in service.get("configs", ())} <= compose["configs"].keys()
    # Every variable that has to be set is in the example.
    stated = {line.partition("=")[0] for line in (DEPLOY / "team" / "example.env").read_text().splitlines()}
    assert set(re.findall(r"\$\{(\w+)", written)) <= stated


def test_prometheus_and_grafana_find_what_there_is() -> None:
    compose = yaml.safe_load((DEPLOY / "team" / "compose.yaml").read_text())
    inner = {name: yaml.safe_load(one["content"]) for name, one in compose["configs"].items()}
    (job,) = inner["prometheus"]["scrape_configs"]
    assert job["http_sd_configs"][0]["url"] == f"http://${{RAY_DASHBOARD}}{RAY_TARGETS}"
    (mounted,) = compose["services"]["grafana"]["volumes"]
    folder, inside, _ = mounted.split(":")
    assert (DEPLOY / "team" / folder / "omnimill.json").exists()
    assert inner["grafana-dashboards"]["providers"][0]["options"]["path"] == inside
    assert inner["grafana-sources"]["datasources"][0]["url"].startswith("http://prometheus:")


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_images_pass_the_linter(name: str) -> None:
    program = Path(sys.executable).with_name("hadolint")
    subprocess.run([str(program), str(DEPLOY / "images" / name)], check=True)


def test_terraform_module_parses_and_names_what_the_launcher_uses() -> None:
    with (DEPLOY / "terraform" / "main.tf").open() as file:
        module: dict[str, Any] = hcl2.load(file)
    (profile,) = (
        one['"aws_iam_instance_profile"'] for one in module["resource"] if '"aws_iam_instance_profile"' in one
    )
    wanted = yaml.safe_load((DEPLOY / "aws.yaml").read_text())["available_node_types"]["ingest"]["node_config"]
    assert profile['"node"']["name"].strip('"') == wanted["IamInstanceProfile"]["Name"]


def _check(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
