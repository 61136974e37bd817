"""The RayJob manifest has fields of KubeRay's API, commands that exist, authentication, and no secret."""

import re
from pathlib import Path

import pytest
import yaml

from configs.loading import load_config
from distributed.stop_agreement import STOP_FILE
from jobs import train
from tests.test_docs import commands

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/kuberay-rayjob.yaml").read_text()
JOB, CLAIM, POLICY = yaml.safe_load_all(TEXT)
# From KubeRay's CRD API reference, ray.io/v1 (1.6 and 1.7).
JOB_FIELDS = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "entrypointNumCpus",
    "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata", "rayClusterSpec", "runtimeEnvYAML",
    "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend",
    "ttlSecondsAfterFinished",
}  # fmt: skip
CLUSTER_FIELDS = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs",
}  # fmt: skip
HEAD_FIELDS = {"enableIngress", "headService", "rayStartParams", "serviceType", "template"}
WORKER_FIELDS = {
    "groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams", "replicas",
    "scaleStrategy", "suspend", "template",
}  # fmt: skip

CLUSTER = JOB["spec"]["rayClusterSpec"]
HEAD, (WORKERS,) = CLUSTER["headGroupSpec"], CLUSTER["workerGroupSpecs"]
PODS = [pytest.param(group["template"]["spec"], id=name) for name, group in (("head", HEAD), ("workers", WORKERS))]


def test_the_fields_are_the_ones_that_kuberay_knows() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    for section, known in ((JOB["spec"], JOB_FIELDS), (CLUSTER, CLUSTER_FIELDS), (HEAD, HEAD_FIELDS)):
        assert set(section) <= known
    assert set(WORKERS) <= WORKER_FIELDS
    assert set(CLUSTER["authOptions"]) <= {"mode", "secretName", "enableK8sTokenAuth"}
    assert JOB["spec"]["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    for group in (HEAD, WORKERS):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert WORKERS["minReplicas"] <= WORKERS["replicas"] <= WORKERS["maxReplicas"]


def test_the_entrypoint_is_a_command_with_knobs_that_exist() -> None:
    ((job, arguments),) = commands(JOB["spec"]["entrypoint"])
    assert job == "train"
    options = train.main.make_context("train", list(arguments)).params
    config = load_config(str(ROOT / options["config_path"]), options["overrides"])
    assert config.cluster.num_workers == WORKERS["replicas"]
    (shared,) = {mount["mountPath"] for pod in PODS for mount in mounts(pod.values[0], "shared")}
    for path in (config.dataset, config.graph, config.run):
        assert path.startswith(f"{shared}/")


def mounts(pod, volume):
    assert volume in {entry["name"] for entry in pod["volumes"]}
    return [mount for container in pod["containers"] for mount in container["volumeMounts"] if mount["name"] == volume]


def test_ray_is_the_installed_version() -> None:
    assert f"ray[default,train]=={CLUSTER['rayVersion']}" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("pod", PODS)
def test_pods_ask_for_the_token_and_run_without_privileges(pod) -> None:
    assert CLUSTER["authOptions"]["mode"] == "token"
    (container,) = pod["containers"]
    assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] >= 1000
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False
    assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
    for mount in container["volumeMounts"]:
        assert mount["name"] in {volume["name"] for volume in pod["volumes"]}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert HEAD["serviceType"] == "ClusterIP"


def test_no_secret_is_written_in_it() -> None:
    for pod in PODS:
        for variable in pod.values[0]["containers"][0]["env"]:
            assert not re.search("TOKEN|KEY|SECRET|PASSWORD", variable["name"]) or "valueFrom" in variable
    assert not re.search(r"AKIA[0-9A-Z]{16}|[0-9a-f]{32}", TEXT)


def test_retries_and_a_graceful_end() -> None:
    assert JOB["spec"]["backoffLimit"] >= 1
    assert JOB["spec"]["shutdownAfterJobFinishes"] is True
    pod = WORKERS["template"]["spec"]
    script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    run = re.search(r"run=(\S+)", JOB["spec"]["entrypoint"])[1]
    assert f"RUN={run};" in script
    assert f"touch $RUN/{STOP_FILE};" in script
    assert int(re.search(r"seq (\d+)", script)[1]) < pod["terminationGracePeriodSeconds"]


def test_only_the_cluster_reaches_its_ports() -> None:
    selected = POLICY["spec"]["podSelector"]["matchLabels"]
    assert POLICY["spec"]["policyTypes"] == ["Ingress"]
    for group in (HEAD, WORKERS):
        assert selected.items() <= group["template"]["metadata"]["labels"].items()
