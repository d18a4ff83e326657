#!/usr/bin/python3
"""Checks runpod-sim's answers against a JSON Schema of the provider's pod API, and that the
simulator refuses what the schema refuses. Prints TAP.

The schema is not part of this project: GPU_ORCH_POD_SCHEMA holds the path of a file with the
definitions Pod, ListPodsResponse, CreatePodRequest and so on below "$defs". Without it, or without
python3-jsonschema, all is skipped.
"""
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

KEY = "rpa_schema"
PROGRAM = os.environ.get("RUNPOD_SIM") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "sim", "runpod-sim")


def skip(reason):
    print("1..0 # SKIP " + reason)
    sys.exit(0)


if not os.environ.get("GPU_ORCH_POD_SCHEMA"):
    skip("GPU_ORCH_POD_SCHEMA is not set")
if not os.access(PROGRAM, os.X_OK):
    skip("runpod-sim is not built")
try:
    import jsonschema
except ImportError:
    skip("python3-jsonschema is not installed")

with open(os.environ["GPU_ORCH_POD_SCHEMA"], encoding="utf-8") as schema_file:
    SCHEMA = json.load(schema_file)

CREATE = {"name": "pod", "image": "image:1", "gpu": {"id": "NVIDIA L4", "count": 1},
          "ports": ["22/tcp", "8888/http"], "env": {"A": "b"}}

# What is put over CREATE; None takes a key away. The schema must refuse each of them.
REFUSED = [
    {"name": None}, {"name": ""}, {"name": 1}, {"image": None}, {"image": 1}, {"image": None, "templateId": ""},
    {"gpu": {}}, {"gpu": {"count": 1}}, {"gpu": {"id": "NVIDIA L4", "count": 0}}, {"gpu": "NVIDIA L4"},
    {"gpu": {"id": "NVIDIA L4", "count": 1, "minCudaVersion": "12"}},
    {"gpu": {"id": "NVIDIA L4", "count": 1, "allowedCudaVersions": "12.8"}},
    {"gpu": {"id": "NVIDIA L4", "count": 1, "allowedCudaVersions": ["x"]}},
    {"gpu": {"id": "NVIDIA L4", "count": 1, "minRamPerGpu": 0}},
    {"gpu": {"id": "NVIDIA L4", "count": 1, "typo": 0}},
    {"cpu": {"id": "", "vcpuCount": 2}}, {"cpu": {"id": "cpu5c", "vcpuCount": 1}}, {"cpu": {"id": "cpu5c"}},
    {"cloud": "ALL"}, {"cloud": "SECURE COMMUNITY"}, {"cloud": None, "cloudType": "SECURE"}, {"dataCenterIds": "EU-RO-1"}, {"dataCenterIds": [1]},
    {"disk": 0}, {"disk": "20"}, {"disk": 1.5}, {"env": []}, {"env": {"A": 1}}, {"env": {"A": None}},
    {"ports": "22/tcp"}, {"ports": [22]}, {"args": []}, {"registry": 1}, {"startSsh": 1}, {"startJupyter": "yes"},
    {"globalNetworking": 0}, {"mounts": []}, {"mounts": {"other": {}}}, {"mounts": {"persistent": {"size": 9, "path": "/a"}}},
    {"mounts": {"persistent": {"size": 10}}}, {"mounts": {"network": [{"volumeId": "a"}]}},
    {"mounts": {"network": [{"volumeId": "a", "path": "/a", "more": 1}]}},
    {"mounts": {"network": [{"volumeId": "a", "path": "/a"}, {"volumeId": "b", "path": "/b"}]}},
    {"cmd": "sleep"}, {"entrypoint": [1]}, {"gpuTypeIds": ["NVIDIA L4"]}, {"imageName": "x"}, {"interruptible": True},
    {"gpuCount": 1}, {"containerDiskInGb": 10}, {"volumeInGb": 10}, {"locked": True},
]

number = 0
failed = 0


def ok(holds, name, detail=""):
    global number, failed
    number += 1
    failed += not holds
    print(("ok" if holds else "not ok") + " %d - %s" % (number, name))
    if not holds:
        print("# " + str(detail).replace("\n", "\n# "))


def problem(definition, value):
    """The first reason why a value does not fit a definition, or None."""
    schema = {**SCHEMA, "$ref": "#/$defs/" + definition}
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    found = jsonschema.exceptions.best_match(checker.iter_errors(value))
    return None if found is None else "%s: %s" % (found.json_path, found.message)


def call(method, path, body=None, key=KEY):
    """One request: the status and the JSON of the answer (None if it is not JSON)."""
    request = urllib.request.Request(
        ADDRESS + path, method=method, data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + key, "User-Agent": "schema-check", "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def fits(definition, status, answer, name):
    """Check the status and the form of an answer; returns the answer."""
    code, json_answer = answer
    why = "status %d" % code if code != status else problem(definition, json_answer)
    ok(why is None, "%s is a %s" % (name, definition), why)
    return json_answer


def over(changes):
    """CREATE with changes."""
    body = {**CREATE, **{key: value for key, value in changes.items() if value is not None}}
    for key, value in changes.items():
        if value is None:
            body.pop(key, None)
    return body


def check_pods():
    pod = fits("Pod", 201, call("POST", "/v2/pods", CREATE), "a new pod")
    path = "/v2/pods/" + pod["id"]
    fits("Pod", 200, call("GET", path), "a pod that boots")
    call("POST", "/_sim/clock", {"advance": 100})
    pod = fits("Pod", 200, call("GET", path), "a pod that runs")
    ok(pod["runtime"] is not None and pod["ssh"]["direct"] is not None, "and shows what it has then")
    for wish in ({"mounts": {"persistent": {"size": 20, "path": "/w"}}, "registry": "r", "args": "x", "disk": 5},
                 {"mounts": {"network": [{"volumeId": "simvolro01", "path": "/v"}]}, "cloud": "SECURE"},
                 {"templateId": "simtemplate", "image": None, "dataCenterIds": ["EU-RO-1"], "globalNetworking": True},
                 {"gpu": {"id": "NVIDIA L4", "count": 2, "minCudaVersion": "12.1", "minRamPerGpu": 8}, "cmd": ["a"]}):
        ok(problem("CreatePodRequest", over(wish)) is None, "the schema allows %s" % json.dumps(wish))
        fits("Pod", 201, call("POST", "/v2/pods", over(wish)), "a pod made with %s" % json.dumps(wish))
    fits("ListPodsResponse", 200, call("GET", "/v2/pods"), "the list")
    for action in ("restart", "stop", "start"):
        fits("Pod", 200, call("POST", path + "/action", {"action": action}), "the answer to %s" % action)
        fits("Pod", 200, call("GET", path), "the pod after %s" % action)
    fits("Pod", 200, call("PATCH", path, {"locked": True, "name": "other"}), "the answer to an update")
    call("POST", "/_sim/pods", {"fail": pod["id"]})
    fits("Pod", 200, call("GET", path), "a pod that failed")


def check_the_rest():
    fits("ListGpuTypesResponse", 200, call("GET", "/v2/catalog/gpus"), "the catalog")
    fits("ListGpuTypesResponse", 200, call("GET", "/v2/catalog/gpus?include=AVAILABILITY&product=POD"), "the catalog with stock")
    fits("GpuType", 200, call("GET", "/v2/catalog/gpus/NVIDIA%20L4"), "one GPU type")
    fits("ListDataCentersResponse", 200, call("GET", "/v2/catalog/datacenters"), "the data centres")
    fits("ListDataCentersResponse", 200, call("GET", "/v2/catalog/datacenters?include=GPU_AVAILABILITY"), "the data centres with stock")
    fits("DataCenter", 200, call("GET", "/v2/catalog/datacenters/EU-RO-1"), "one data centre")
    call("POST", "/_sim/clock", {"advance": 10000})
    for size in ("hour", "day", "week", "month", "year"):
        history = fits("ListPodBillingResponse", 200, call("GET", "/v2/billing/pods?bucketSize=" + size), "billing by " + size)
        ok(history["metadata"]["recordCount"] > 0, "and it holds something")
    fits("ErrorResponse", 401, call("GET", "/v2/pods", key="wrong"), "the answer to a wrong key")
    fits("ErrorResponse", 404, call("GET", "/v2/pods/nothing"), "the answer for a pod that is not there")
    fits("ErrorResponse", 404, call("GET", "/v2/nothing"), "the answer for a path that is not there")
    fits("ErrorResponse", 405, call("PUT", "/v2/pods", {}), "the answer to a wrong method")
    fits("ErrorResponse", 400, call("POST", "/v2/pods", over({"gpu": {"id": "NVIDIA L4"}})), "the answer without capacity")


def check_refusals():
    for changes in REFUSED:
        body = over(changes)
        name = json.dumps(changes)
        ok(problem("CreatePodRequest", body) is not None, "the schema refuses %s" % name)
        fits("ErrorResponse", 422, call("POST", "/v2/pods", body), "the refusal of %s" % name)
    for body in ({"action": "reset"}, {}, {"action": "stop", "more": 1}, {"action": 1}):
        ok(problem("PodActionRequest", body) is not None, "the schema refuses %s" % json.dumps(body))
        fits("ErrorResponse", 422, call("POST", "/v2/pods/any/action", body), "the refusal of %s" % json.dumps(body))
    for body in ({"gpu": {"id": "NVIDIA L4"}}, {"locked": "yes"}, {"name": ""}, {"disk": 0}):
        ok(problem("UpdatePodRequest", body) is not None, "the schema refuses %s" % json.dumps(body))
        fits("ErrorResponse", 422, call("PATCH", "/v2/pods/any", body), "the refusal of %s" % json.dumps(body))


for options in (["--status-mode", "staged"], ["--status-mode", "immediate", "--paging"]):
    with subprocess.Popen([PROGRAM, "--listen", "127.0.0.1:0", "--api-key", KEY, "--boot-seconds", "50"] + options,
                          stdout=subprocess.PIPE, text=True) as simulator:
        try:
            ADDRESS = "http://" + simulator.stdout.readline().split()[-1]
            print("# " + " ".join(options))
            check_pods()
            check_the_rest()
            check_refusals()
        finally:
            simulator.terminate()
print("1..%d" % number)
sys.exit(1 if failed else 0)
