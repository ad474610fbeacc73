"""The files of launch/, checked offline: shellcheck, the launchers' own argument parsers, Ray's own schema, Kubernetes' own schemas."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.clouds import tool, tool_python

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH = REPOSITORY / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_are_executable(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], capture_output=True, text=True).stderr == ""


def test_shellcheck() -> None:
    done = subprocess.run([tool("shellcheck"), "-s", "bash", *map(str, SCRIPTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder for the PATH whose launchers write down how they were called, and what Slurm's tools would say."""
    programs = {
        "deepspeed": f'printf "%s\\n" "$@" > {tmp_path}/call; [ -z "${{DS_ENV_FILE:-}}" ] || cp "$DS_ENV_FILE" {tmp_path}/exported',
        "ssh": 'case "$*" in *absent*) exit 255;; esac',
        "torchrun": f'printf "%s\\n" "$@" > {tmp_path}/call',
        "scontrol": "printf 'node7\\nnode8\\n'",
        "srun": 'while [[ $1 == -* ]]; do if [ "$1" = -w ]; then shift; fi; shift; done; export SLURM_NODEID=1; exec "$@"',
        "hostname": "echo 10.0.0.7 fd00::7",
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def call(recorded: Path, *command: str | Path, code: int = 0, **environment: str) -> tuple[list[str], str]:
    """What the launcher was called with, and the script's own words."""
    kept = {key: value for key, value in os.environ.items() if key not in ("NODE_RANK", "MASTER_ADDR", "DS_ACCELERATOR", "OMP_NUM_THREADS")}
    done = subprocess.run(
        [str(part) for part in command],
        env={**kept, "PATH": f"{recorded}:{os.environ['PATH']}", **environment},
        cwd=recorded.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    written = recorded.parent / "call"
    return (written.read_text().splitlines() if written.exists() else []), done.stderr


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    hosts, config = tmp_path / "hosts", tmp_path / "config.yaml"
    hosts.write_text("# the cluster\n\nnode1 slots=4\nnode2 slots=4\n")
    config.write_text("{}\n")
    return hosts, config


def test_deepspeed_without_ssh(recorded: Path, files: tuple[Path, Path]) -> None:
    arguments, _ = call(recorded, LAUNCH / "deepspeed.sh", *files, "600", "run.dir=/shared/x", NODE_RANK="1")
    hosts, config = map(str, files)
    assert shlex.join(arguments) == (
        f"--hostfile {hosts} --no_ssh --node_rank 1 --master_addr node1 --master_port 29500 "
        f"--module grover_dist.pretrain {config} --cycles 600 run.dir=/shared/x"
    )


def test_deepspeed_over_pdsh_carries_the_environment(recorded: Path, files: tuple[Path, Path]) -> None:
    arguments, _ = call(
        recorded, LAUNCH / "deepspeed.sh", *files, "600", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="3", MINE="a=b", GROVER_EXPORTS="MINE"
    )
    assert arguments[2:6] == ["--launcher", "pdsh", "--master_port", "29500"]
    exported = (recorded.parent / "exported").read_text().splitlines()
    assert {"DS_ACCELERATOR=cpu", "OMP_NUM_THREADS=3", "MINE=a=b"} <= set(exported)
    assert all(re.fullmatch(r"\w+=.+", line) for line in exported), "the launcher splits each line at its first ="


def test_deepspeed_over_open_mpi_tells_the_ranks_where_to_meet(recorded: Path, files: tuple[Path, Path]) -> None:
    arguments, _ = call(recorded, LAUNCH / "deepspeed.sh", *files, "600", LAUNCHER="openmpi", OMP_NUM_THREADS="3", MASTER_PORT="4000")
    assert arguments[2:6] == ["--launcher", "openmpi", "--launcher_args", "--bind-to none"]
    exported = (recorded.parent / "exported").read_text().splitlines()
    assert {"MASTER_ADDR=node1", "MASTER_PORT=4000", "OMP_NUM_THREADS=3"} <= set(exported)
    _, said = call(recorded, LAUNCH / "deepspeed.sh", *files, "600", LAUNCHER="mpich", code=2)
    assert "LAUNCHER is pdsh or openmpi, got 'mpich'" in said


def test_a_host_without_ssh_is_named_and_nothing_is_started(recorded: Path, files: tuple[Path, Path]) -> None:
    files[0].write_text("node1 slots=4\nabsent2 slots=4\nabsent3 slots=4\n")
    called, said = call(recorded, LAUNCH / "deepspeed.sh", *files, "600", code=2)
    assert "absent2 absent3" in said and "node1" not in said and called == []


@pytest.mark.distributed
def test_deepspeed_itself_understands_the_call(recorded: Path, files: tuple[Path, Path]) -> None:
    from deepspeed.launcher.runner import fetch_hostfile, parse_args

    arguments, _ = call(recorded, LAUNCH / "deepspeed.sh", *files, "600", "seed=2", NODE_RANK="0")
    parsed = parse_args(arguments)
    assert parsed.module and parsed.no_ssh and parsed.node_rank == 0 and parsed.user_script == "grover_dist.pretrain"
    assert parsed.user_args == [str(files[1]), "--cycles", "600", "seed=2"]
    assert dict(fetch_hostfile(parsed.hostfile)) == {"node1": 4, "node2": 4}


@pytest.mark.distributed
def test_torchrun_itself_understands_the_call(recorded: Path, files: tuple[Path, Path]) -> None:
    from torch.distributed.run import parse_args

    arguments, _ = call(recorded, LAUNCH / "torchrun.sh", "4", files[1], "600", "seed=2")
    parsed = parse_args(arguments)
    assert parsed.standalone and parsed.module and parsed.training_script == "grover_dist.pretrain"
    assert parsed.training_script_args == [str(files[1]), "--cycles", "600", "seed=2"]
    arguments, _ = call(recorded, LAUNCH / "torchrun.sh", "4", files[1], "600", MASTER_ADDR="node1", NODES="2", NODE_RANK="1")
    parsed = parse_args(arguments)
    assert (parsed.nnodes, parsed.node_rank, parsed.master_addr) == ("2", 1, "node1")


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("deepspeed.sh", ["hosts"], "HOSTFILE CONFIG CYCLES"),
        ("deepspeed.sh", ["absent", "config.yaml", "600"], "cannot read absent"),
        ("deepspeed.sh", ["hosts", "config.yaml", "c600"], "CYCLES is the number of merges"),
        ("torchrun.sh", ["2", "absent.yaml", "600"], "cannot read absent.yaml"),
        ("torchrun.sh", ["two", "config.yaml", "600"], "are numbers"),
    ],
)
def test_bad_arguments(recorded: Path, files: tuple[Path, Path], script: str, arguments: list[str], words: str) -> None:
    called, said = call(recorded, LAUNCH / script, *arguments, code=2)
    assert words in said and called == []


def test_slurm_with_deepspeed(recorded: Path, files: tuple[Path, Path]) -> None:
    slurm = {
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }
    spooled = shutil.copy(LAUNCH / "slurm-deepspeed.sbatch", recorded.parent / "slurm_script")  # Slurm runs a copy
    arguments, _ = call(recorded, spooled, files[1], "600", "seed=2", **slurm)
    text = shlex.join(arguments)
    assert "--no_ssh --node_rank 1 --master_addr 10.0.0.7 --master_port 23456" in text
    assert text.endswith(f"--module grover_dist.pretrain {files[1]} --cycles 600 seed=2")
    assert not list(recorded.parent.glob(".hosts-*")), "the host file is removed"


def test_slurm_with_ray(recorded: Path, files: tuple[Path, Path]) -> None:
    job = "104711"  # the port is 20000 and its last four digits
    listen = "import socket, sys, time; s = socket.create_server(('127.0.0.1', 24711)); time.sleep(5)"
    programs = {
        "hostname": "echo 127.0.0.1",
        "ray": f'echo "$RAY_AUTH_MODE $(stat -c %a "$RAY_AUTH_TOKEN_PATH") $*" >> {recorded.parent}/ray-calls\n'
        f'case "$*" in *--head*) exec {sys.executable} -c "{listen}";; esac',
        "python": f"until [ $(wc -l < {recorded.parent}/ray-calls) -eq 2 ] || [ $((++waited)) -gt 100 ]; do sleep 0.1; done\n"
        f'echo "$RAY_ADDRESS $*" > {recorded.parent}/run-call; exit 7',
    }
    for name, body in programs.items():
        (recorded / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (recorded / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }
    call(recorded, LAUNCH / "slurm-ray.sbatch", files[1], "seed=2", code=7, **slurm)
    assert (recorded.parent / "run-call").read_text() == f"127.0.0.1:24711 -m grover_dist run {files[1]} seed=2\n"
    head, worker = sorted((recorded.parent / "ray-calls").read_text().splitlines(), key=lambda line: "--head" not in line)
    assert head.startswith("token 600 start --head --block") and "--dashboard-host 127.0.0.1" in head and "--num-gpus 4" in head
    assert worker.startswith("token 600 start --block") and worker.endswith("--address 127.0.0.1:24711")
    assert not list(recorded.parent.glob(".ray-*")), "the token is removed"


@pytest.fixture(scope="module")
def ray_cluster() -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "ray-cluster.yaml").read_text())


@pytest.mark.ray
def test_ray_up_by_rays_own_schema(tmp_path: Path) -> None:
    code = (
        "import json, sys, yaml\n"
        "from ray.autoscaler._private.util import prepare_config, validate_config\n"
        "config = prepare_config(yaml.safe_load(open(sys.argv[1])))\n"
        "validate_config(config)\n"
        "print(json.dumps(sorted(config['available_node_types'])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(LAUNCH / "ray-cluster.yaml")],
        env={**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["gpu", "head"]


def test_ray_up_is_private(ray_cluster: dict[str, Any]) -> None:
    assert ray_cluster["provider"]["use_internal_ips"] is True
    for node in ray_cluster["available_node_types"].values():
        config = node["node_config"]
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        assert all(mapping["Ebs"]["Encrypted"] for mapping in config["BlockDeviceMappings"])
        assert "InstanceMarketOptions" not in config, "Ray's default puts workers on spot"
        assert config["SecurityGroupIds"] == ["SECURITY_GROUP"] and config["SubnetIds"] == ["SUBNET"]
    head, worker = (" ".join(ray_cluster[key]) for key in ("head_start_ray_commands", "worker_start_ray_commands"))
    assert "--dashboard-host=127.0.0.1" in head
    for words in (head, worker):
        assert "RAY_AUTH_MODE=token" in words and "0.0.0.0" not in words


def test_the_filling_in_of_the_readme_leaves_no_word_open(ray_cluster: dict[str, Any]) -> None:
    readme, text = (LAUNCH / "README.md").read_text(), yaml.safe_dump(ray_cluster)
    words = set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b|\b(?:REGION|SUBNET|WHEEL|CONSTRAINTS)\b", text)) - {
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_HEAD_IP",
    }
    assert words and all(f"s|{word}|" in readme for word in words)


@pytest.fixture(scope="module")
def ray_job() -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "kuberay-rayjob.yaml").read_text())


def pods(ray_job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = ray_job["spec"]["rayClusterSpec"]
    return {
        "submitter": ray_job["spec"]["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        **{group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]},
    }


def test_pod_templates_by_kubernetes_schemas(ray_job: dict[str, Any]) -> None:
    python = tool_python("kubernetes_validate")
    code = "import json, sys, kubernetes_validate as k; [k.validate(pod, k.latest_version(), strict=True) for pod in json.load(sys.stdin)]"
    made = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{name}"}, "spec": template["spec"]}
        for name, template in pods(ray_job).items()
    ]
    done = subprocess.run([python, "-c", code], input=json.dumps(made), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    broken = json.loads(json.dumps(made))
    broken[0]["spec"]["containers"][0]["imagee"] = "typo"
    assert subprocess.run([python, "-c", code], input=json.dumps(broken), capture_output=True, text=True).returncode != 0


def test_the_whole_by_a_crd_that_the_user_gives(ray_job: dict[str, Any]) -> None:
    given = os.environ.get("KUBERAY_RAYJOB_CRD")
    if not given:
        pytest.skip("KUBERAY_RAYJOB_CRD names no file: the RayJob CRD of KubeRay, which no package registry carries")
    import jsonschema

    versions = yaml.safe_load(Path(given).read_text())["spec"]["versions"]
    schema = next(item["schema"]["openAPIV3Schema"] for item in versions if item["name"] == "v1")
    jsonschema.validate(ray_job, schema)


def test_every_pod_has_the_token_and_no_rights(ray_job: dict[str, Any]) -> None:
    import ray

    assert ray_job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    for template in pods(ray_job).values():
        (container,) = template["spec"]["containers"]
        environment = {item["name"]: item for item in container["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "grover-ray-token"
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert template["spec"]["automountServiceAccountToken"] is False
    assert ray_job["spec"]["shutdownAfterJobFinishes"] is True
    assert ray_job["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_readme_names_every_file(path: Path) -> None:
    assert path.name in (LAUNCH / "README.md").read_text()
