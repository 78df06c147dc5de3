"""The binding end to end: the starter zoo, queries from arrays, ingest, fine-tuning, errors as exceptions."""

import json
import os
import pathlib
import shutil
import threading

import numpy as np
import pytest
import tans

ROOT = pathlib.Path(__file__).resolve().parents[3]
HIT_FIELDS = {
    "rank", "model", "cosine", "predicted_accuracy", "interval", "measured", "probed_accuracy", "source_tasks",
    "params", "macs", "license", "status",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def zoo(folder):
    return tans.init(
        folder / "zoo", starter=ROOT / "assets" / "starter.tar", cache_dir=folder / "cache"
    )


@pytest.fixture(scope="module")
def dataset():
    with np.load(ROOT / "assets" / "benchmark" / "fashion_mnist.npz") as arrays:
        return arrays["x"], arrays["y"]


def models(hits):
    return [hit["model"] for hit in hits]


def few_signs(folder):
    """An image folder of two classes."""
    for name in ["clocks", "flags"]:
        (folder / name).mkdir(parents=True)
        for image in sorted((ROOT / "assets" / "queries" / "clipart_signs" / name).iterdir())[:6]:
            shutil.copy(image, folder / name)
    return folder


def test_a_hit_has_the_fields_of_the_command_line(zoo, dataset):
    hits = zoo.query(*dataset, k=3)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert all(hit.keys() == HIT_FIELDS for hit in hits)
    for hit in hits:
        low, high = hit["interval"]
        assert 0 <= low <= hit["predicted_accuracy"] <= high <= 1


def test_rows_are_cached_where_the_caller_says(zoo, dataset, folder):
    zoo.query(*dataset)
    assert any(path.is_file() for path in (folder / "cache").rglob("*"))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", ">i4", "uint32", "int64", "uint64"])
def test_labels_are_integers_of_any_type(zoo, dataset, dtype):
    images, labels = dataset
    assert models(zoo.query(images, labels.astype(dtype))) == models(zoo.query(images, labels.tolist()))


@pytest.mark.parametrize("dtype", ["int16", "uint16", ">i4", "float16", "float32", "float64"])
def test_images_are_numbers_of_any_type(zoo, dataset, dtype):
    images, labels = dataset
    expected = models(zoo.query(images, labels))
    assert images.max() > 200
    assert models(zoo.query(images.astype(dtype), labels)) == expected
    if "float" in dtype:
        # As many frameworks have them; rounding makes the same bytes of it.
        assert models(zoo.query((images / 255).astype(dtype), labels)) == expected


def test_images_have_the_shapes_of_an_npz(zoo, dataset):
    images, labels = dataset
    expected = models(zoo.query(images, labels))
    grey = images.reshape(images.shape[:3])
    assert models(zoo.query(grey[..., None], labels)) == expected
    assert models(zoo.query(np.asfortranarray(grey), labels)) == expected
    opaque = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=-1)
    assert models(zoo.query(opaque, labels)) == models(zoo.query(opaque[..., :3], labels))


def test_only_what_runs_here_is_found_where_asked(zoo, dataset):
    zoo.record("far", "benchmark/fashion_mnist", 0.99)
    assert "far" in models(zoo.query(*dataset, k=100))
    assert "far" not in models(zoo.query(*dataset, k=100, runnable=True))
    zoo.remove(["far"])


def test_a_filter_keeps_only_what_matches(zoo, dataset):
    limit = 60_000
    hits = zoo.query(*dataset, k=5, max_params=limit)
    assert hits and all(hit["params"] <= limit for hit in hits)


def test_results_alone_are_judged(zoo, tmp_path):
    records = tmp_path / "records.csv"
    lines = [f"m{m},d{d},{0.5 + 0.1 * m}" for m in range(4) for d in range(3)]
    records.write_text("\n".join(["model,dataset,accuracy", *lines]))
    rows = zoo.evaluate(records=records)
    assert next(row["loss"] for row in rows if row["method"] == "default") == 0
    with pytest.raises(tans.InputError, match="kind: expected probe, finetune or reported"):
        zoo.evaluate(judge="guessed")


def test_what_is_left_out_is_a_warning(zoo, tmp_path):
    signs = few_signs(tmp_path / "signs")
    for folder in signs.iterdir():
        (folder / "broken.png").write_text("no image")
    expected = "unreadable images skipped in all: 2; the first, .*broken.png: "
    with pytest.warns(UserWarning, match=expected):
        hits = zoo.query(signs, k=1)
    with pytest.warns(UserWarning, match=expected):
        assert zoo.measure(hits[0]["model"], signs)
    with pytest.warns(UserWarning, match=expected):
        assert len(zoo.explain(hits[0]["model"], signs)["skipped"]) == 2


def test_a_network_that_cannot_be_measured_is_a_warning(dataset, folder, tmp_path):
    small = tans.init(tmp_path / "zoo", cache_dir=folder / "cache")
    small.ingest("small:cnn-w16@32", name="plain")
    odd = tmp_path / "odd.onnx"
    small.export("plain", odd)
    odd.write_bytes(odd.read_bytes().replace(b"Relu", b"Rely"))
    small.ingest(odd)
    with pytest.warns(UserWarning, match="could not be measured: 1; the first, odd: .*Rely"):
        assert models(small.measure(None, *dataset)) == ["plain"]


def test_arrays_and_stored_task_rank_alike(zoo, dataset):
    # The stored task has the rows of the training part of the very same images.
    stored = zoo.query("task:benchmark/fashion_mnist", k=5)
    assert models(zoo.query(*dataset, k=5))[0] in models(stored)


def test_an_explanation_adds_up(zoo, dataset):
    hit = zoo.query(*dataset, k=1)[0]
    why = zoo.explain(hit["model"], *dataset)
    assert why["cosine"] == pytest.approx(hit["cosine"], abs=1e-5)
    assert sum(term["cosine"] for term in why["terms"]) == pytest.approx(why["cosine"], abs=1e-5)
    total = why["expected_accuracy"] + sum(term["accuracy"] for term in why["terms"])
    assert total == pytest.approx(why["predicted_accuracy"], abs=1e-4)
    assert why["similar_tasks"][0]["task"] == "benchmark/fashion_mnist"


def test_a_model_is_ingested_exported_tuned_and_removed(zoo, dataset, folder):
    stored = zoo.ingest("small:cnn-w16@32", name="fresh", license="MIT", tags={"for": "test"})
    assert [(it["model"], it["status"]) for it in stored] == [("fresh", "stored")]
    file = folder / "fresh.safetensors"
    assert zoo.export("fresh", file)["bytes"] == file.stat().st_size
    report = zoo.finetune("fresh", *dataset, epochs=1, name="tuned")
    assert (report["model"], report["parent"], report["kind"]) == ("tuned", "fresh", "finetune")
    assert 0 <= report["accuracy"] <= 1 and len(report["epochs"]) == 1
    assert zoo.show("tuned")["results"]
    assert zoo.measure("fresh", *dataset)[0]["kind"] == "probe"
    zoo.remove(["fresh", "tuned"])
    assert not {"fresh", "tuned"} & set(models(zoo.list()))


def test_a_zoo_grows_on_arrays_and_folders(zoo, dataset):
    images, labels = dataset
    signs = ROOT / "assets" / "queries" / "clipart_signs"
    report = zoo.grow([(images, labels), signs], space="small@32", budget=2, epochs=1)
    assert [it["training"] for it in report["trainings"]] == [1, 2]
    assert {it["dataset"] for it in report["datasets"]} == {"arrays", "clipart_signs"}
    assert all(it["area"] >= it["area_before"] for it in report["datasets"])
    zoo.remove([it["model"] for it in report["trainings"]])
    with pytest.raises(ValueError, match="expected a list"):
        zoo.grow(str(signs))
    with pytest.raises(tans.InputError, match="at least 1 training"):
        zoo.grow([signs], budget=0)


def test_every_command_has_its_method(zoo, dataset, folder):
    images, labels = dataset
    task = zoo.add_task("kept", images[::2], labels[::2], family="clothes")
    assert task["task"] == "kept"
    assert zoo.record("elsewhere", "kept", 0.5) == {
        "pairs": 1, "replaced": 0, "new_models": 1, "new_tasks": 0, "ignored_columns": []
    }
    zoo.edit("elsewhere", name="far", license="MIT OR Apache-2.0", tags={"for": "test"})
    assert models(zoo.query("task:kept", k=100, licenses=["Apache-2.0"], tags={"for": "test"})) == ["far"]
    results = folder / "results.csv"
    results.write_text("model,dataset,accuracy\nfar,kept,0.25\n")
    assert zoo.record_file(results)["replaced"] == 1
    assert [it["accuracy"] for it in zoo.show("far")["results"]] == [pytest.approx(0.25)]
    zoo.encode(folder / "rows.npz", images, labels)
    # Rows alone lack the pixel scalars, so that the order may differ from the images' own.
    assert set(models(zoo.query(folder / "rows.npz", k=20))) & set(models(zoo.query(images, labels)))
    zoo.remove(["far"])
    zoo.remove_task("kept")
    assert zoo.reindex()["models"] == len(zoo.list())
    zoo.gc()
    zoo.backup(folder / "backups")
    tans.restore(folder / "backups", folder / "again")
    assert models(tans.open(folder / "again", "r").list()) == models(zoo.list())


def test_a_file_is_ingested_by_its_path(zoo, folder):
    onnx = folder / "fresh.onnx"
    zoo.ingest("small:cnn-w18@32", name="written")
    zoo.export("written", onnx)
    zoo.remove(["written"])
    stored = zoo.ingest(onnx, task="somewhere", accuracy=0.5)
    assert [(it["model"], it["status"]) for it in stored] == [("fresh", "stored")]
    result = zoo.show("fresh")["results"]
    assert ("somewhere", "reported", 0.5) in [(it["task"], it["kind"], it["accuracy"]) for it in result]
    zoo.remove(["fresh"])


def test_weights_are_views_of_the_zoo(zoo, folder):
    model = models(zoo.list())[0]
    weights = zoo.weights(model)
    assert sum(array.size for array in weights.values()) >= zoo.show(model)["params"]
    for array in weights.values():
        assert not array.flags.writeable and not array.flags.owndata
    zoo.export(model, folder / "same.onnx")
    path = folder / "all.safetensors"
    zoo.export(model, path)
    header_length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + header_length])
    data = path.read_bytes()[8 + header_length :]
    for name, array in weights.items():
        start, end = header[name]["data_offsets"]
        assert array.tobytes() == data[start:end], name
        assert list(array.shape) == header[name]["shape"]
    with pytest.raises(tans.InputError, match="nobody"):
        zoo.weights("nobody")


def test_the_input_is_stated_as_on_the_command_line(zoo, folder):
    file = folder / "stated.onnx"
    zoo.ingest("small:cnn-w18@32", name="source")
    zoo.export("source", file)
    contract = {"scale": 1.0, "mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]}
    zoo.ingest(file, channel_order="bgr", benchmark="none", **contract)
    shown = zoo.show("stated")
    assert shown["input"]["order"] == "Bgr"
    assert {key: shown["input"][key] for key in contract} == contract
    assert not any(it["kind"] == "probe" for it in shown["results"])
    with pytest.raises(tans.InputError, match='channel_order: expected rgb or bgr or grey, found "cmyk"'):
        zoo.ingest(file, channel_order="cmyk")
    with pytest.raises(tans.InputError, match="more than the limit of 100"):
        zoo.ingest(file, max_weight_bytes=100)
    zoo.remove(["source", "stated"])


def test_networks_are_tuned_with_the_options_of_the_command_line(zoo, dataset):
    before = set(models(zoo.list()))
    report = zoo.finetune(None, *dataset, top=2, max_params=60_000, epochs=2, batch_size=8, name="winner", tags={"for": "test"})
    assert report["model"] == "winner" and len(report["candidates"]) == 2
    assert zoo.show("winner")["params"] <= 60_000 and zoo.show("winner")["tags"] == {"for": "test"}
    zoo.remove(["winner"])
    model = min(before)
    measured = zoo.measure(model, *dataset, by="finetune", epochs=1, head_only=True)
    assert [it["kind"] for it in measured] == ["finetune"] and set(models(zoo.list())) == before
    for call, message in [
        (lambda: zoo.finetune(model, *dataset, top=2), "found both"),
        (lambda: zoo.finetune(None, *dataset), "found neither"),
        (lambda: zoo.finetune(model, *dataset, max_params=9), "expected top=N with them"),
        (lambda: zoo.finetune(model, *dataset, optimizer="adam"), 'optimizer: expected adamw or sgd, found "adam"'),
        (lambda: zoo.measure(model, *dataset, epochs=1), "by: expected \"finetune\""),
    ]:
        with pytest.raises(tans.InputError, match=message):
            call()
    with pytest.raises(TypeError, match="epoch_count"):
        zoo.finetune(model, *dataset, epoch_count=1)


def test_samples_are_drawn_as_asked(zoo, dataset):
    few = zoo.add_task("few", *dataset, per_class=4, train_share=0.5, split_seed=3)
    assert few["rows"] == 2 * few["classes"]
    zoo.remove_task("few")
    with pytest.raises(tans.InputError, match="samples per class: expected at least 2, found 1"):
        zoo.query(*dataset, per_class=1)


def test_a_list_is_filtered_and_sorted(zoo):
    params = [it["params"] for it in zoo.list(sort="params")]
    assert params == sorted(it["params"] for it in zoo.list())
    limit = params[len(params) // 2]
    assert {it["params"] for it in zoo.list(max_params=limit)} == {it for it in params if it <= limit}
    assert zoo.list(tags={"nobody": "has"}) == [] and zoo.list(licenses=["Nobody"]) == []
    with pytest.raises(tans.InputError, match="sort: expected added"):
        zoo.list(sort="age")


def test_files_of_networks_are_ingested(zoo, folder):
    zoo.ingest("small:cnn-w18@32", name="plain")
    for suffix in ["onnx", "safetensors"]:
        file = folder / f"plain.{suffix}"
        zoo.export("plain", file)
        again = zoo.ingest(file)
        assert [(it["model"], it["status"]) for it in again] == [("plain", "already stored")]
    with pytest.raises(tans.InputError, match="do not fit small:cnn-w20"):
        zoo.ingest(folder / "plain.safetensors", space="small:cnn-w20")
    with pytest.raises(tans.InputError, match="source: expected a path or a torch.nn.Module, found .*int"):
        zoo.ingest(3)
    zoo.remove(["plain"])


def test_a_module_of_pytorch_is_exported_and_ingested(zoo):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )  # fmt: skip
    stored = zoo.ingest(module, name="module", input=(3, 32, 32), mean=[0.5] * 3, std=[0.25] * 3)
    assert [(it["model"], it["status"], it["note"]) for it in stored] == [("module", "stored", None)]
    assert stored[0]["params"] == sum(weight.numel() for weight in module.parameters())
    with pytest.raises(tans.InputError, match="source: expected input=.channels, height, width."):
        zoo.ingest(module)
    zoo.remove(["module"])


def test_another_thread_runs_during_a_long_operation(zoo, dataset):
    # A thread that holds the interpreter lock would let the counter stand still.
    counted, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counted[0] += 1
            done.wait(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = counted[0]
    zoo.check()
    after = counted[0]
    done.set()
    thread.join()
    assert after > before + 2


def test_bad_input_is_named_with_both_sides(zoo, dataset, tmp_path):
    images, labels = dataset
    with pytest.raises(tans.InputError, match="k: expected at least 1, found 0"):
        zoo.query(images, labels, k=0)
    for call, name in [
        (lambda: zoo.query(images, labels, k=-1), "k"),
        (lambda: zoo.query(images, labels, max_params=-1), "max_params"),
        (lambda: zoo.ingest("small:cnn-w16@32", jobs=-1), "jobs"),
        (lambda: zoo.finetune("nobody", images, labels, seed=-1), "seed"),
        (lambda: zoo.train(epochs=-1), "epochs"),
    ]:
        with pytest.raises(tans.InputError, match=f"^{name}: expected a whole number from 0 .*, found -1"):
            call()
    assert zoo.query(images, labels, k=np.int64(1), max_params=np.uint64(2**63))
    with pytest.raises(tans.InputError, match="subnet: expected it without max_params"):
        zoo.cut("nobody", subnet="d2-k3-e4", max_params=2_000_000)
    for wrong, message in [
        (np.full(len(labels), -1), "labels: expected integers from 0 .*found -1"),
        (labels.astype("float32"), r"labels: expected integers \[n\], found float32"),
        (labels[:, None], r"labels: expected integers \[n\], found \w+ \[\d+, 1\]"),
    ]:
        with pytest.raises(tans.InputError, match=message):
            zoo.query(images, wrong)
    with pytest.raises(tans.InputError, match="label for each of"):
        zoo.query(images, labels[:-1])
    colour = np.stack([images] * 3, axis=-1) if images.ndim == 3 else images
    for wrong, message in [
        (images[:, :0], "images: expected images with sides from 1"),
        (images[0, 0], r"images: expected images of shape \[n, h, w\].*found shape"),
        (np.moveaxis(colour, -1, 1), r"put the channels last with x.transpose\(0, 2, 3, 1\)"),
        (images.astype("float32") / 10, "images: expected uint8, or values that fill 0..1 or 0..255"),
        (images.astype("complex64"), "images: expected bool, int, uint, float or str .*complex|c8"),
        ([[[1]], [[1, 2]]], "images: expected an array"),
        (np.full(images.shape, None), "images: expected an array"),
    ]:
        with pytest.raises(tans.InputError, match=message):
            zoo.query(wrong, labels)
    with pytest.raises(tans.InputError, match="expected a path"):
        zoo.query(images)
    text = tmp_path / "not.onnx"
    text.write_text("this is no network")
    with pytest.raises(tans.InputError, match="not.onnx"):
        zoo.ingest(str(text))


def test_paths_need_not_be_text_unless_results_name_them(zoo, dataset, tmp_path):
    odd = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    few_signs(odd)
    assert zoo.query(odd, k=1)
    model = models(zoo.list())[0]
    for call, name in [
        (lambda: zoo.ingest(odd / "network.onnx"), "source"),
        (lambda: zoo.finetune(model, *dataset, epochs=1, output=odd / "tuned.onnx"), "output"),
        (lambda: zoo.export(model, odd / "same.onnx"), "output"),
        (lambda: zoo.encode(odd / "rows.npz", *dataset), "output"),
        (lambda: zoo.backup(odd / "backups"), "folder"),
        (lambda: tans.restore(odd, tmp_path / "again"), "backup"),
    ]:
        with pytest.raises(tans.InputError, match=f"^{name}: expected a path in UTF-8, found .*xFF"):
            call()


def test_every_kind_of_failure_has_its_exception(zoo, folder, tmp_path):
    for kind in ["InputError", "RefusedError", "CancelledError", "ZooError"]:
        assert issubclass(getattr(tans, kind), tans.TansError)
    assert issubclass(tans.LockedError, tans.ZooError)
    assert issubclass(tans.DamagedError, tans.ZooError)
    with pytest.raises(tans.InputError, match="not a zoo"):
        tans.open(tmp_path)
    assert issubclass(tans.InputError, ValueError)
    with pytest.raises(tans.LockedError, match="being written by"):
        tans.open(folder / "zoo", wait=0.1)
    with pytest.raises(tans.InputError, match="mode"):
        tans.open(folder / "zoo", "rw")
    with pytest.raises(tans.InputError, match="device"):
        tans.open(folder / "zoo", "r", device="abacus")
    reader = tans.open(folder / "zoo", "r")
    with pytest.raises(tans.InputError, match="reading only"):
        reader.remove(models(reader.list())[:1])


def test_the_zoo_is_sound(zoo):
    assert zoo.check()["sound"]


def test_a_closed_zoo_is_free_for_the_next(tmp_path):
    path = str(tmp_path / "zoo")
    with tans.init(path) as zoo:
        with pytest.raises(tans.LockedError):
            tans.open(path)
    with pytest.raises(tans.InputError, match="closed"):
        zoo.list()
    tans.open(path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_leaves_the_zoo_alone(tmp_path):
    at = tmp_path / "zoo"
    with tans.init(at) as zoo:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                zoo.record("model", "task", 0.5)
                said = "recorded"
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            # As a child does that ends in the ordinary way.
            zoo.close()
            os.write(write, said.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as words:
            said = words.read()
        assert os.waitpid(child, 0)[1] == 0
        assert "child that it forked" in said, said
        # Its end has taken the lock from nobody.
        with pytest.raises(tans.TansError, match="written by"):
            tans.open(at)
        zoo.record("model", "task", 0.5)
        assert zoo.check()["sound"]
