"""The binding end to end: the starter zoo, a query from arrays, an ingest, errors as exceptions."""

import pathlib

import numpy as np
import pytest
import tans

ROOT = pathlib.Path(__file__).resolve().parents[3]
HIT_FIELDS = {
    "rank", "model", "cosine", "predicted_accuracy", "interval", "source_tasks", "params", "macs",
    "license",
}  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return tans.init(folder / "zoo", starter=ROOT / "assets" / "starter.tar")


@pytest.fixture(scope="module")
def dataset():
    with np.load(ROOT / "assets" / "benchmark" / "fashion_mnist.npz") as arrays:
        return arrays["x"], arrays["y"].astype(np.int64)


def test_query_from_arrays_answers_with_the_fields_of_the_command_line(zoo, dataset):
    images, labels = dataset
    hits = zoo.query(images, labels, k=3)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert all(HIT_FIELDS <= hit.keys() for hit in hits)
    assert all(0 <= hit["interval"][0] <= hit["predicted_accuracy"] <= hit["interval"][1] <= 1 for hit in hits)


def test_a_filter_keeps_only_what_matches(zoo, dataset):
    images, labels = dataset
    limit = 60_000
    hits = zoo.query(images, labels, k=5, max_params=limit)
    assert hits and all(hit["params"] <= limit for hit in hits)


def test_arrays_and_stored_task_rank_alike(zoo, dataset):
    images, labels = dataset
    from_arrays = zoo.query(images, labels, k=5)
    from_task = zoo.query_path("task:benchmark/fashion_mnist", k=5)
    assert [hit["model"] for hit in from_arrays][0] in [hit["model"] for hit in from_task]


def test_bad_input_is_an_input_error_and_names_both_sides(zoo, dataset, tmp_path):
    images, labels = dataset
    with pytest.raises(tans.InputError, match="k: expected at least 1, found 0"):
        zoo.query(images, labels, k=0)
    with pytest.raises(ValueError, match="labels: expected integers from 0, found -1"):
        zoo.query(images, np.full(len(labels), -1, dtype=np.int64))
    text = tmp_path / "not.onnx"
    text.write_text("this is no network")
    with pytest.raises(tans.InputError, match="not.onnx"):
        zoo.ingest(str(text))
    with pytest.raises(tans.ZooError, match="not a zoo"):
        tans.open(tmp_path)


def test_check_finds_the_zoo_sound(zoo):
    assert zoo.check()["sound"]
