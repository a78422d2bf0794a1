"""Nothing that a run reads is executed, and no connection is made."""

from __future__ import annotations

import ast
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from command import gmia
from promise import kept
from toy_release import write_input

import gmia_monai
from gmia_monai.errors import GmiaError
from gmia_monai.networks import IdentityNet, load_recorded, save_network
from gmia_monai.release.policy import load_policy
from gmia_monai.weights import INDEX, sha256_of

PACKAGE = Path(gmia_monai.__file__).parent


class _Touch:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _safetensors(header: dict | bytes, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def _hostile(canary: Path) -> dict[str, bytes]:
    pickled, protocol0 = pickle.dumps(_Touch(canary)), pickle.dumps(_Touch(canary), protocol=0)
    checkpoint = io.BytesIO()
    torch.save({"fc.weight": _Touch(canary)}, checkpoint)
    legacy = io.BytesIO()
    torch.save(_Touch(canary), legacy, _use_new_zipfile_serialization=False)
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("../../escape", b"x")
    arrays = io.BytesIO()
    np.save(arrays, np.array([_Touch(canary)], dtype=object), allow_pickle=True)
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "pickle": pickled,
        "pickle, protocol 0": protocol0,
        "torch checkpoint": checkpoint.getvalue(),
        "old torch checkpoint": legacy.getvalue(),
        "zip with a pickle": nested.getvalue(),
        "numpy with objects": arrays.getvalue(),
        "header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
        "header longer than the file": struct.pack("<Q", 10_000) + b"{}",
        "header that is no JSON": _safetensors(b"\x80\x04."),
        "the same name twice": _safetensors(
            b'{"a":' + json.dumps(one).encode() + b',"a":' + json.dumps(one).encode() + b"}", bytes(8)
        ),
        "overlapping tensors": _safetensors({"a": one, "b": one}, bytes(8)),
        "offsets beyond the end": _safetensors({"a": one | {"data_offsets": [0, 80], "shape": [20]}}, bytes(8)),
        "unknown number type": _safetensors({"a": one | {"dtype": "X99"}}, bytes(8)),
        "negative shape": _safetensors({"a": one | {"shape": [-2]}}, bytes(8)),
        "empty": b"",
        "tensors of another network": _safetensors({"a": one}, bytes(8)),
    }


def test_hostile_weights_are_refused_and_nothing_of_them_runs(tmp_path):
    canary = tmp_path / "canary"
    arguments = {"image_size": 32, "architecture": "small", "embedding_dim": 8}
    save_network(tmp_path / "models" / "identity.safetensors", IdentityNet(**arguments), arguments)
    path, index = tmp_path / "models" / "identity.safetensors", tmp_path / "models" / INDEX
    good, wrong = path.read_bytes(), []
    hostile = _hostile(canary)
    not_finite = IdentityNet(**arguments)
    with torch.no_grad():
        not_finite.fc.weight[0, 0] = float("nan")
    save_network(tmp_path / "nan" / "identity.safetensors", not_finite, arguments)
    hostile["NaN"] = (tmp_path / "nan" / "identity.safetensors").read_bytes()
    hostile["another network's name"] = good.replace(b"IdentityNet", b"os.systemXX")
    assert len(hostile) >= 16
    for name, raw in hostile.items():
        path.write_bytes(raw)
        recorded = json.loads(index.read_text())
        recorded["identity"]["sha256"] = sha256_of(path)  # the index is the liar's, too
        index.write_text(json.dumps(recorded))
        try:
            load_recorded(tmp_path / "models", "identity")
            wrong.append(name)
        except GmiaError:
            pass
        if canary.exists():
            wrong.append((name, "ran"))
            canary.unlink()
    recorded["identity"]["sha256"] = "0" * 64
    index.write_text(json.dumps(recorded))
    path.write_bytes(good)
    with pytest.raises(GmiaError, match="GM-W002"):
        load_recorded(tmp_path / "models", "identity")
    kept("hostile weights are refused, and nothing of them runs", len(hostile) + 1, wrong)


POLICIES = [
    "$import os", "system: $__import__('os').system('touch canary')", "$import: [os]",
    "_target_: os.system\ncommand: touch canary", "system: {_target_: os.system}",
    "!!python/object/apply:os.system ['touch canary']",
    "!!python/object/new:os.system [touch canary]", "!!python/name:os.system", "!!python/module:os",
    "system: !!python/object/apply:subprocess.check_output [[touch, canary]]", "linkage: !!binary dG91Y2g=",
    "linkage: !env HOME", "linkage: ${HOME}", "linkage: $HOME", "linkage: '%{HOME}%'", "linkage: !include /etc/passwd",
    "linkage: '@system#name'", "system: '%/etc/passwd'", "system: {name: os.system}", "system: {name: '../../escape'}",
    "system: {settings: {f: '__import__(\"os\")'}}\nextra: 1", "a: &a [*a]", "a: &a [x, x]\nb: [*a, *a]",
    "linkage: unlinkable\nlinkage: pseudonymous", "version: 2", "intake: {min_age_years: .nan}",
    "checks: {identity_share: .inf}",
    "checks: {min_contrast: 1e999}", "? [1, 2]\n: 3", "- a\n- b", "\x00", "{" * 2000,
]  # fmt: skip


def test_hostile_policies_are_refused_and_nothing_of_them_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = []
    for i, text in enumerate(POLICIES):
        path = tmp_path / f"{i}.yaml"
        path.write_text(text)
        try:
            load_policy(path)
            wrong.append(text)
        except GmiaError:
            pass
    wrong += ["canary"] if (tmp_path / "canary").exists() else []
    assert len(POLICIES) >= 30
    kept("hostile policies are refused, and nothing of them runs", len(POLICIES), wrong)


BANNED = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads",
    "shelve.open", "torch.hub.load", "yaml.load", "yaml.unsafe_load", "tempfile.mktemp", "subprocess.getoutput",
    "jsonpickle.decode", "joblib.load", "dill.load", "cloudpickle.load",
}  # fmt: skip


def _calls(tree: ast.Module) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_no_call_that_runs_what_it_reads():
    wrong, tried = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, node in _calls(ast.parse(path.read_text(encoding="utf-8"))):
            tried += 1
            words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            bad = name in BANNED or name.endswith(".extractall") or words.get("shell") == "True"
            bad |= name in ("torch.load", "np.load", "numpy.load") and "True" not in words.get("weights_only", "") and (
                words.get("allow_pickle") != "False"
            )  # fmt: skip
            if bad:
                wrong.append((str(path.relative_to(PACKAGE)), node.lineno, name))
    assert tried > 1000
    kept("no call of the package runs what it reads", tried, wrong)


BLOCKED = """
import socket
def refused(*arguments, **more):
    with open("connections", "a") as stream:
        stream.write(repr(arguments) + "\\n")
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refused
socket.socket.sendto = socket.getaddrinfo = refused
"""


def test_a_whole_run_makes_no_connection(tmp_path):
    write_input(tmp_path / "in", patients=3, images=2)
    wrong = []
    verbs = (("anonymize", "in", "out", "--workers", "1"), ("verify", "out"), ("report", "out"), ("check", "in"))
    for verb in verbs:
        code, said = gmia(*verb, cwd=tmp_path, before=BLOCKED)
        wrong += [] if code == 0 else [(verb, code, said[-300:])]
    wrong += (tmp_path / "connections").read_text().splitlines() if (tmp_path / "connections").exists() else []
    kept("no connection is made", len(verbs), wrong, "sockets blocked")
