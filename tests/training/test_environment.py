import json
import subprocess

import jax
import pytest

from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.environment import LONGEST_DIFF, describe_environment, git_state


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        named = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *named, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a.txt").write_text("one\n")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path


def test_the_commit_the_diff_and_the_untracked_files_are_known(repository):
    clean = git_state(repository)
    assert len(clean["commit"]) == 40
    assert (clean["dirty"], clean["diff"], clean["untracked"]) == (False, "", [])
    (repository / "a.txt").write_text("two\n")
    (repository / "b.txt").write_text("new\n")
    dirty = git_state(repository)
    assert dirty["dirty"]
    assert "-one\n+two" in dirty["diff"]
    assert dirty["untracked"] == ["b.txt"]


def test_an_enormous_diff_is_cut(repository):
    (repository / "a.txt").write_text("line\n" * LONGEST_DIFF)
    found = git_state(repository)["diff"]
    assert len(found) < LONGEST_DIFF + 100
    assert found.endswith("more characters)")


def test_outside_a_repository_nothing_is_known(tmp_path):
    assert git_state(tmp_path) is None


def test_the_environment_is_json_and_says_what_the_numbers_come_from(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_SOMETHING", "1")
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["jaxlib"] == jax.lib.__version__
    assert len(found["devices"]) == jax.device_count()
    assert found["variables"]["JAX_SOMETHING"] == "1"
    assert "hush" not in json.dumps(found)
    assert found["git"]["working_folder"] is None


def test_the_compilation_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    settings = {name: getattr(jax.config, name) for name in (
        "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes")}  # fmt: skip
    assert use_compilation_cache() is None  # JAX_COMPILATION_CACHE_DIR is set for the tests
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("LMLAB_CACHE", "")
    assert use_compilation_cache() is None
    monkeypatch.setenv("LMLAB_CACHE", str(tmp_path / "mine"))
    assert use_compilation_cache() == tmp_path / "mine" / "xla"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine" / "xla")
    monkeypatch.delenv("LMLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    assert use_compilation_cache() == tmp_path / "users" / "lmlab" / "xla"
    for name, value in settings.items():
        jax.config.update(name, value)
