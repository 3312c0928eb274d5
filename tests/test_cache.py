import multiprocessing
import os
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s4eca.cache
from s4eca.cache import Contents, DiskCache, digest, readable
from s4eca.errors import S4ecaError

KEY, OTHER = digest(name="first"), digest(name="second")


def value(seed=0, side=20):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (3, side, side), dtype=np.uint8),
        "bits": rng.random(7) < 0.5,
        "features": rng.random((2, 3)).astype(np.float16),
        "sizes": np.array([[800, 801], [2, 3]]),
        "scale": np.array(0.25),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert np.array_equal(found[name], array), name


def test_what_is_put_in_comes_out(tmp_path):
    cache = DiskCache(tmp_path / "cache", "things")
    assert cache.get(KEY) is None
    cache.put(KEY, value())
    assert_same(cache.get(KEY), value())
    assert cache.get(OTHER) is None
    assert_same(DiskCache(tmp_path / "cache", "things").get(KEY), value())
    assert DiskCache(tmp_path / "cache", "others").get(KEY) is None


def test_an_entry_belongs_to_whoever_reads_it(tmp_path):
    cache = DiskCache(tmp_path, "things")
    cache.put(KEY, value())
    cache.get(KEY)["image"][:] = 0
    assert_same(cache.get(KEY), value())


def test_arrays_that_are_views(tmp_path):
    cache = DiskCache(tmp_path, "things")
    array = np.arange(24).reshape(4, 6)
    cache.put(KEY, {"view": array.T[::2]})
    assert np.array_equal(cache.get(KEY)["view"], array.T[::2])


def test_python_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match="'names' holds Python objects"):
        DiskCache(tmp_path, "things").put(KEY, {"names": np.array(["a", None], dtype=object)})
    assert DiskCache(tmp_path, "things").describe().unfinished == 0


def test_make_is_called_for_what_is_missing_alone(tmp_path):
    cache = DiskCache(tmp_path, "things")
    calls = []

    def make():
        calls.append(1)
        return value(3)

    for _ in range(3):
        assert_same(cache.get_or_make(KEY, make), value(3))
    assert len(calls) == 1


def test_a_new_value_replaces_the_old_one(tmp_path):
    cache = DiskCache(tmp_path, "things")
    cache.put(KEY, value(0))
    cache.put(KEY, value(1, side=3))
    assert_same(cache.get(KEY), value(1, side=3))


def test_digest():
    keys = [
        digest(size=480, how="pil"),
        digest(size=481, how="pil"),
        digest(size="480", how="pil"),
        digest(size=480, how="torch"),
        digest(size=480, how=["pil"]),
        digest(size=480, how=None),
        digest(size=480),
        digest(siz=480, ehow="pil"),
    ]
    assert len(set(keys)) == len(keys)
    assert digest(how="pil", size=480) == keys[0]
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    with pytest.raises(TypeError):
        digest(array=np.zeros(3))


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "empty":
        content = b""
    elif how == "text":
        content = b"nothing of the kind, and long enough for a header"
    elif how == "short":
        content = content[:10]
    elif how == "truncated":
        content = content[: len(content) // 2]
    elif how == "one byte less":
        content = content[:-1]
    elif how == "longer":
        content = content + b"\0"
    elif how == "zeros":
        content[-256:] = bytes(256)
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["empty", "text", "short", "truncated", "one byte less", "longer", "zeros"])
def test_a_damaged_entry_is_named_and_made_again(tmp_path, how):
    cache = DiskCache(tmp_path, "things")
    cache.put(KEY, value())
    path = cache.path(KEY)
    damage(path, how)
    with pytest.warns(UserWarning, match=rf"cache entry {path} is damaged .* made again"):
        assert_same(cache.get_or_make(KEY, value), value())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(cache.get(KEY), value())


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_found(tmp_path_factory, data):
    cache = DiskCache(tmp_path_factory.mktemp("cache"), "things")
    cache.put(KEY, value(side=4))
    path = cache.path(KEY)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) * 8 - 1))
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        assert cache.get(KEY) is None


def test_an_entry_in_the_place_of_another_is_not_served(tmp_path):
    cache = DiskCache(tmp_path, "things")
    cache.put(KEY, value())
    cache.path(OTHER).parent.mkdir(exist_ok=True)
    shutil.copy(cache.path(KEY), cache.path(OTHER))
    with pytest.warns(UserWarning, match="belongs to another key"):
        assert cache.get(OTHER) is None


def test_an_interrupted_write_leaves_the_old_entry(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path, "things")
    cache.put(KEY, value(0))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(s4eca.cache.Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        cache.put(KEY, value(1))
    assert_same(cache.get(KEY), value(0))
    assert cache.describe().unfinished == 0


def test_a_cache_that_cannot_be_written_warns_once_and_goes_on(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = DiskCache(tmp_path / "file", "things")
    with pytest.warns(UserWarning, match=r"file.things cannot be written .*data\.cache"):
        assert_same(cache.get_or_make(KEY, value), value())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(cache.get_or_make(KEY, value), value())
        assert cache.get(KEY) is None


def test_plan_counts_what_is_missing(tmp_path):
    cache = DiskCache(tmp_path, "things")
    keys = [digest(number=number) for number in range(10)]
    for key in keys[:4]:
        cache.put(key, value())
    plan = cache.plan([*keys, keys[0]], value())
    assert (plan.entries, plan.missing) == (10, 6)
    size = cache.path(keys[0]).stat().st_size
    assert 6 * size <= plan.needed <= 6 * (size + 4096)
    assert plan.needed % 4096 == 0
    assert 0 < plan.free <= shutil.disk_usage(tmp_path).total
    for key in keys[4:]:
        cache.put(key, value())
    assert cache.plan(keys, value()).needed == 0


def test_too_little_room_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * 2**20))
    cache = DiskCache(tmp_path, "things", setting="features.cache")
    keys = [digest(number=number) for number in range(1100)]
    with pytest.raises(S4ecaError, match=r"needs 8\.6 MiB for 1,100 more .* has 3\.0 MiB free.*features\.cache=null"):
        cache.plan(keys, {"x": np.zeros(5000, np.uint8)})  # two blocks of 4 KiB each
    assert cache.describe() == Contents(0, 0, 0)
    # what is there already needs no room
    cache.put(keys[0], {"x": np.zeros(5000, np.uint8)})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert cache.plan(keys[:1], {"x": np.zeros(5000, np.uint8)}).missing == 0


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(S4ecaError, match=r"file.things cannot be made.*data\.cache"):
        DiskCache(tmp_path / "file", "things").plan([KEY], value())


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path, "things")
    cache.put(KEY, value())
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache.plan([KEY], value()).missing == 0
    with pytest.raises(S4ecaError, match=r"lacks 1 entries and cannot be written"):
        cache.plan([KEY, OTHER], value())


def test_describe(tmp_path):
    cache = DiskCache(tmp_path / "none", "things")
    assert cache.describe() == Contents(0, 0, 0)
    cache.put(KEY, value(0))
    cache.put(OTHER, value(1))
    cache.path(KEY).with_name(".3f2a").write_bytes(b"half")
    size = cache.path(KEY).stat().st_size + cache.path(OTHER).stat().st_size
    assert cache.describe() == Contents(2, size, 1)


def test_readable():
    assert [readable(size) for size in (5, 2048, 3 * 2**20, 2**30 * 17 // 2)] == [
        "5 bytes",
        "2.0 KiB",
        "3.0 MiB",
        "8.5 GiB",
    ]


def fill(folder, rounds, start, results):
    """What a process does in the test below: takes or makes every entry, in an order of its own, many times."""
    warnings.simplefilter("error")
    cache = DiskCache(folder, "things")
    keys = [digest(number=number) for number in range(12)]
    start.wait()
    wrong = 0
    for turn in range(rounds):
        for number in np.random.default_rng([os.getpid(), turn]).permutation(12):
            if turn % 2:  # and replaces what others are reading
                cache.put(keys[number], value(int(number), side=300))
            found = cache.get_or_make(keys[number], lambda n=int(number): value(n, side=300))
            wrong += not np.array_equal(found["image"], value(int(number), side=300)["image"])
    results.put(wrong)


def test_processes_that_fill_the_same_cache_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=fill, args=(tmp_path, 6, start, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    assert [results.get(timeout=60) for _ in workers] == [0, 0, 0]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    contents = DiskCache(tmp_path, "things").describe()
    assert (contents.entries, contents.unfinished) == (12, 0)
