"""The order of the folders, and what an import may cost."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_folders_import_downwards_only():
    pytest.importorskip("importlinter")
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.smoke
@pytest.mark.parametrize("module", ["lmlab", "lmlab.registry", "lmlab.contracts", "lmlab.config", "lmlab.cli.main"])
def test_importing_what_needs_no_arrays_does_not_import_jax(module):
    program = f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('jax', 'flax', 'grain', 'orbax')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
