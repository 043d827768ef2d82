"""The modules behind a real DEEPaaS: how good they are, what they accept, and what they say of the machine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.deepaas_server import environment, installed, serving, variables

CLASSIFIER = "/v2/models/image_classifier"
DETECTOR = "/v2/models/anomaly_detector"
DARK = [0.0] * 64


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def classifier(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("classifier") / "tmp"
    with serving(modules, "image_classifier", folder) as client:
        yield client
    # Its models go with it.
    assert list(folder.glob("deep-model-*")) == []


@pytest.fixture(scope="module")
def detector(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(modules, "anomaly_detector", tmp_path_factory.mktemp("detector") / "tmp") as client:
        yield client


def predicted(client: httpx.Client, model: str, **arguments: Any) -> dict[str, Any]:
    answer = client.post(f"{model}/predict/", json=arguments)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["predictions"])


def trained(client: httpx.Client, model: str, **arguments: Any) -> dict[str, Any]:
    """Train and wait for the end."""
    begun = client.post(f"{model}/train/", json=arguments)
    assert begun.status_code == 200, begun.text
    deadline = time.monotonic() + 60
    while (now := client.get(f"{model}/train/{begun.json()['uuid']}").json())["status"] == "running":
        assert time.monotonic() < deadline, now
        time.sleep(0.1)
    assert now["status"] == "done", now
    return dict(now["result"]["output"])


def refused(client: httpx.Client, path: str, arguments: Any) -> str:
    answer = client.post(path, json=arguments)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    return json.dumps(answer.json())


# --- the image classifier ------------------------------------------------------------------------------------------


def test_digits_that_no_training_has_seen_are_recognised(classifier: httpx.Client) -> None:
    found = predicted(classifier, CLASSIFIER, samples=list(range(450)))
    right = [answer["label"] == truth for answer, truth in zip(found["digits"], found["truth"], strict=True)]
    # What it says of itself is what can be counted.
    assert found["accuracy"] == pytest.approx(sum(right) / 450)
    assert sum(right) / 450 >= 0.96
    assert set(found["truth"]) == set(range(10))


def test_a_picture_is_asked_for_in_json_and_in_a_query(classifier: httpx.Client) -> None:
    one = predicted(classifier, CLASSIFIER, images=[DARK])
    query = classifier.post(f"{CLASSIFIER}/predict/", params={"images": json.dumps([DARK])}).json()["predictions"]
    assert one == query
    assert "truth" not in one


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"images": [DARK[1:]]}, "row 0: wrong length (found 63, needed 64 numbers)"),
        ({"images": [[17.0, *DARK[1:]]]}, "out of range (found 17.0, needed 0 to 16)"),
        ({"images": [["1", *DARK[1:]]]}, "not a number"),
        ({"images": [[10**400, *DARK[1:]]]}, "not a number"),
        ({"images": "[[1, 2"}, "not JSON"),
        ({"images": "[" * 100_000}, "not JSON"),
        ({"images": {"a": 1}}, "not a table"),
        ({"images": []}, "wrong number of rows (found 0, needed 1 to 1000)"),
        ({"samples": [450]}, "samples"),
        ({"samples": []}, "samples"),
        ({}, "found neither"),
        ({"images": [DARK], "samples": [1]}, "found both"),
    ],
)
def test_a_wrong_picture_is_refused_with_the_reason(
    classifier: httpx.Client, arguments: dict[str, Any], said: str
) -> None:
    assert said in refused(classifier, f"{CLASSIFIER}/predict/", arguments)


def test_what_is_no_json_is_refused(classifier: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    answer = classifier.post(f"{CLASSIFIER}/predict/", content="{", headers=headers)
    assert answer.status_code == 400
    assert answer.json()


def test_too_much_is_refused(classifier: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    assert classifier.post(f"{CLASSIFIER}/predict/", content=b" " * (17 << 20), headers=headers).status_code == 413


def test_a_training_changes_what_every_worker_answers(classifier: httpx.Client) -> None:
    poor = trained(classifier, CLASSIFIER, epochs=1, learning_rate=0.0001, hidden_units=8)
    assert poor["accuracy"] < 0.6
    assert poor["computed_on"] == "cpu"
    answers = [predicted(classifier, CLASSIFIER, samples=[0])["accuracy"] for _ in range(6)]
    assert answers == [poor["accuracy"]] * 6
    good = trained(classifier, CLASSIFIER)
    assert good["accuracy"] >= 0.96
    assert predicted(classifier, CLASSIFIER, samples=[0])["accuracy"] == good["accuracy"]


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"hidden_units": "many"}, {"learning_rate": 1}, {"seed": -1}])
def test_a_wrong_training_is_refused(classifier: httpx.Client, wrong: dict[str, Any]) -> None:
    assert next(iter(wrong)) in refused(classifier, f"{CLASSIFIER}/train/", wrong)


def test_it_says_what_it_is(classifier: httpx.Client) -> None:
    (found,) = classifier.get("/v2/models/").json()["models"]
    assert found["name"] == "image_classifier"
    assert found["title"] == "Image classifier"
    assert found["license"] == "Apache-2.0"


# --- the anomaly detector ------------------------------------------------------------------------------------------


def rows_of(found: dict[str, Any]) -> set[int]:
    return {anomaly["row"] for anomaly in found["anomalies"]}


def test_events_are_found_that_no_series_betrays(detector: httpx.Client) -> None:
    hits = total = false = 0
    for number in range(10):
        found = predicted(detector, DETECTOR, sample=number)
        truth, said = set(found["truth"]), rows_of(found)
        # A row after an event is expected from the event: its forecast is off too.
        after = {row + lag for row in truth for lag in range(1, found["unjudged"] + 1)}
        hits, total, false = hits + len(said & truth), total + len(truth), false + len(said - truth - after)
    assert hits / total >= 0.95
    assert false / (10 * 600) <= 0.01


def test_it_is_better_than_looking_at_each_series_alone(detector: httpx.Client) -> None:
    quality = trained(detector, DETECTOR)["quality"]
    assert quality["auc"] >= 0.97
    assert quality["auc"] >= quality["auc_of_distances"] + 0.1


def made_up(modules: Path, tmp_path: Path, rows: int) -> list[list[float]]:
    """Normal rows, from the module's own package."""
    code = f"import json; from anomaly_detector import traffic; print(json.dumps(traffic.normal({rows}, 77).tolist()))"
    argv: list[str | Path] = [environment() / "bin/python", "-c", code]
    made = subprocess.run(argv, env=variables(modules, tmp_path), check=True, capture_output=True, cwd="/")
    return list(json.loads(made.stdout))


def test_it_learns_from_what_is_sent_and_blames_the_right_series(
    detector: httpx.Client, modules: Path, tmp_path: Path
) -> None:
    rows = made_up(modules, tmp_path, 1500)
    # Another scale of one series: a model of before would find every row unusual.
    own = [[value * (7 if column == 2 else 1) for column, value in enumerate(row)] for row in rows]
    assert len(predicted(detector, DETECTOR, series=own)["anomalies"]) > 1000
    assert trained(detector, DETECTOR, series=own, lags=2, false_alarms=0.001)["rows"] == 1500
    found = predicted(detector, DETECTOR, series=own)
    assert len(found["anomalies"]) < 15
    assert found["unjudged"] == 2
    own[700][3] += 25
    (there,) = [anomaly for anomaly in predicted(detector, DETECTOR, series=own)["anomalies"] if anomaly["row"] == 700]
    assert there["channel"] == "dns_queries"
    trained(detector, DETECTOR)


def test_a_series_that_never_changes_is_no_error(detector: httpx.Client) -> None:
    trained(detector, DETECTOR, series=[[1.0, 2.0, 3.0, 4.0, 5.0]] * 600)
    assert predicted(detector, DETECTOR, series=[[1.0, 2.0, 3.0, 4.0, 5.0]] * 30)["rows"] == 30
    trained(detector, DETECTOR)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"series": [[1, 2, 3, 4]] * 30}, "wrong length (found 4, needed 5 numbers)"),
        ({"series": [[1, 2, 3, 4, 5]]}, "wrong number of rows (found 1, needed 25 to 20000)"),
        ({"series": [[1, 2, 3, 4, None]] * 30}, "not a number (found 'None'"),
        ({"sample": 1000}, "sample"),
        ({}, "found neither"),
    ],
)
def test_a_wrong_series_is_refused_with_the_reason(
    detector: httpx.Client, arguments: dict[str, Any], said: str
) -> None:
    assert said in refused(detector, f"{DETECTOR}/predict/", arguments)


# --- the machine ---------------------------------------------------------------------------------------------------


def test_no_gpu_is_claimed(detector: httpx.Client) -> None:
    found = predicted(detector, DETECTOR, sample=0)
    assert found["computed_on"] == "cpu"
    assert found["gpus"].keys() == {"devices", "names", "driver", "simulated"}
    if not Path("/dev/nvidia0").exists():
        assert found["gpus"] == {"devices": [], "names": [], "driver": "", "simulated": None}


def test_models_are_nobody_elses(classifier: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = list(tmp_path_factory.getbasetemp().glob("classifier0/tmp/deep-model-*"))
    assert [folder.stat().st_mode & 0o777 for folder in kept] == [0o700]
    assert [file.name for file in kept[0].glob("*.joblib")] == ["image_classifier.joblib"]
