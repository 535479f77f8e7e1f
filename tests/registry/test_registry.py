"""Names to components: found without imports, unique over all kinds, and explained when they are not there."""

import importlib
import inspect
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lmlab import registry
from lmlab.errors import ConfigError
from lmlab.registry import CATALOGUE, evaluators, losses, models

pytestmark = pytest.mark.usefixtures("own_catalogue")

PLUGIN = '''
from lmlab.registry import losses

@losses.register("{name}")
def {name}(x: int = 1) -> int:
    """Gives {name}.

    And more.
    """
    return x
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """`plugin(file, text)` writes a plug-in file into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(file: str, text: str) -> str:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return str(path)

    return write


def refused(where: str) -> str:
    with pytest.raises(ConfigError) as caught:
        registry.load_plugin(where)
    return str(caught.value)


ORIGINS = """
from lmlab.registry import datasets

@datasets.register("from_afar")
class FromAfar:
    origin: str = "afar"
    later: int

@datasets.register("from_here")
class FromHere:
    pass
"""


# --- Finding --------------------------------------------------------------------------------------------------


def test_a_module_is_imported_only_for_attributes_that_its_class_sets(plugin, monkeypatch):
    plugin("origins.py", ORIGINS)
    monkeypatch.syspath_prepend(".")
    afar, here = registry.scan(Path("origins.py"), "origins")
    assert here.attribute("origin") is None and afar.attribute("later") is None and "origins" not in sys.modules
    assert afar.attribute("origin") == "afar" and sys.modules.pop("origins")
    assert here.component and here.attribute("origin") is None and here.attribute("__module__") == "origins"
    del sys.modules["origins"]


def test_names_are_known_without_importing_components():
    program = (
        "import sys; from lmlab import registry; registry.scan_installed_plugins()\n"
        "assert 'experiment' in registry.settings.names() and registry.find('experiment').summary()\n"
        "sys.exit(any(m in sys.modules for m in ('jax', 'flax', 'lmlab.training.experiment')))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_what_is_read_from_the_sources_is_what_importing_registers(monkeypatch):
    scanned = dict(CATALOGUE.entries())
    for entry in scanned.values():
        module = importlib.import_module(entry.module)
        component = entry.component
        assert inspect.getmodule(component) is module, entry
        assert component.__doc__ and inspect.cleandoc(component.__doc__).split("\n")[0] == entry.summary(), entry
    assert {name: entry.kind for name, entry in CATALOGUE.entries().items()} == {n: e.kind for n, e in scanned.items()}


def test_an_entry_is_shown_with_its_place_and_first_line(plugin):
    registry.load_plugin(plugin("mine.py", PLUGIN.format(name="mine")))
    entry = registry.find("mine")
    assert (entry.kind, entry.summary()) == ("loss", "Gives mine.")
    assert entry.place in ("mine.py:4", "mine.py:5")
    assert losses.get("mine")(x=3) == 3


def test_unknown_names_get_near_ones_and_the_whole_list(plugin):
    registry.load_plugin(plugin("mine.py", PLUGIN.format(name="cross_entropy")))
    with pytest.raises(ConfigError) as caught:
        losses.get("cros_entropi")
    message = str(caught.value)
    assert message.startswith("no loss named 'cros_entropi'. Did you mean 'cross_entropy'?\n  known loss names: ")
    assert "cross_entropy" in message.split("known loss names: ")[1]
    with pytest.raises(ConfigError, match=r"no model named 'cross_entropy'. \('cross_entropy' is a loss.\)"):
        models.get("cross_entropy")


def test_names_are_unique_over_all_kinds(plugin):
    registry.load_plugin(plugin("a.py", PLUGIN.format(name="mine")))
    message = refused(plugin("b.py", PLUGIN.format(name="mine").replace("losses", "evaluators")))
    assert "the name 'mine' is registered twice: as a loss at a.py:" in message
    assert "and as an evaluator at b.py:" in message


def test_a_name_of_lmlab_itself_cannot_be_taken(plugin):
    message = refused(plugin("a.py", PLUGIN.format(name="experiment")))
    assert "as a settings at" in message and "training/experiment.py:" in message and "as a loss at a.py:" in message


@pytest.mark.parametrize("open_", ["**kwargs", "*args", "x, /"])
def test_open_signatures_are_refused(open_):
    namespace: dict = {}
    exec(f"class Open:\n    def __init__(self, {open_}): ...", namespace)
    with pytest.raises(ConfigError, match="its parameters are its configuration, so each must have a name"):
        losses.register("open")(namespace["Open"])
    assert registry.find("open") is None


def test_the_signature_of_a_class_is_that_of_its_init_whatever_its_metaclass():
    """nnx.Module's metaclass has a `__call__(cls, *args, **kwargs)`, which inspect.signature(cls) would show."""

    class Meta(type):
        def __call__(cls, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    class Module(metaclass=Meta):
        def __init__(self, vocab: int, *, width: int = 3) -> None: ...

    class Nothing: ...

    assert list(registry.signature(Module).parameters) == ["vocab", "width"]
    assert not registry.signature(Nothing).parameters
    assert models.register("with_a_metaclass")(Module) is Module


def test_a_notebook_cell_may_be_run_again():
    for cell in (1, 2):
        namespace = {"__name__": "__main__"}
        exec(compile(f"def again(x: int = {cell}) -> int:\n    return x", f"<cell {cell}>", "exec"), namespace)
        losses.register("again")(namespace["again"])
    assert losses.get("again")() == 2


# --- Plug-ins -------------------------------------------------------------------------------------------------


def test_a_plugin_is_a_file_or_a_module(plugin, monkeypatch):
    plugin("package/__init__.py", "")
    plugin("package/inner.py", PLUGIN.format(name="inner"))
    plugin("beside.py", PLUGIN.format(name="beside"))
    registry.load_plugin("beside")  # a module that is not installed is looked for here
    monkeypatch.syspath_prepend(str(Path.cwd()))
    registry.load_plugin("package.inner")
    assert {"inner", "beside"} <= set(losses.names())
    for name in ("package", "package.inner"):
        monkeypatch.delitem(sys.modules, name)


def test_loading_a_plugin_twice_is_loading_it_once(plugin):
    where = plugin("mine.py", PLUGIN.format(name="mine"))
    assert registry.load_plugin(where) is registry.load_plugin("mine.py") is registry.load_plugin("./mine.py")


def test_objects_of_a_plugin_file_can_be_pickled_to_another_process(plugin):
    where = plugin("mine.py", PLUGIN.format(name="mine") + "\nclass Thing:\n    pass\n")
    thing = pickle.dumps(registry.load_plugin(where).Thing())
    program = (
        "import pickle, sys; from lmlab.registry import load_plugin; load_plugin(sys.argv[1])\n"
        "print(type(pickle.loads(bytes.fromhex(sys.argv[2]))).__name__)"
    )
    root = Path(registry.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", program, where, thing.hex()], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "Thing", done.stderr


def test_a_plugin_that_is_not_there_is_named(plugin):
    plugin("other.py", "")
    assert "plug-in 'nowhere.py': no such file." in refused("nowhere.py")
    assert "plug-in 'nowhere.at_all': there is no module 'nowhere'." in refused("nowhere.at_all")


def test_a_plugin_that_fails_is_one_line_with_the_cause_behind_it(plugin):
    where = plugin("bad.py", "x = 1\nraise OSError('no disk')\n")
    with pytest.raises(
        ConfigError, match=r"plug-in '.*bad.py' cannot be imported: OSError: no disk \(.*bad.py:2\)"
    ) as e:
        registry.load_plugin(where)
    assert isinstance(e.value.__cause__, OSError)
    where = plugin("needs.py", "\n\nimport not_installed_at_all\n")
    assert "ModuleNotFoundError: No module named 'not_installed_at_all'" in refused(where)
    assert "needs.py:3" in refused(where)
    assert "is not valid Python:" in refused(plugin("syntax.py", "x = 1\ndef f(:\n")) and "syntax.py:2" in refused(
        "syntax.py"
    )


def test_a_repaired_plugin_can_be_loaded(plugin):
    text = PLUGIN.format(name="first")
    refused(plugin("mine.py", text + "\nraise ValueError\n"))
    assert registry.find("first") is None
    registry.load_plugin(plugin("mine.py", "# repaired\n" + text))
    assert losses.get("first")() == 1


@pytest.fixture
def installed(plugin, monkeypatch):
    """`installed(text)` installs a package `somebodys` with the entry point of a plug-in."""

    def install(text: str, module: str = "somebodys") -> None:
        plugin("site/somebodys/__init__.py", "")
        plugin("site/somebodys/parts.py", text)
        plugin("site/somebodys-1.dist-info/METADATA", "Name: somebodys\nVersion: 1\n")
        plugin("site/somebodys-1.dist-info/entry_points.txt", f"[lmlab.plugins]\nsomebodys = {module}\n")
        monkeypatch.syspath_prepend(str(Path("site").resolve()))

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "somebodys"]:
        del sys.modules[name]


def test_installed_plugins_are_listed_without_being_imported(installed):
    installed("raise SystemExit('imported')\n" + PLUGIN.format(name="theirs"))
    registry.scan_installed_plugins()
    assert registry.find("theirs").summary() == "Gives theirs."
    assert "somebodys.parts" not in sys.modules


def test_an_installed_plugin_is_imported_when_its_component_is_used(installed):
    installed(PLUGIN.format(name="theirs"))
    registry.scan_installed_plugins()
    assert losses.get("theirs")(x=5) == 5
    assert "somebodys.parts" in sys.modules


def test_two_plugins_with_one_name_show_both_places(installed, plugin):
    installed(PLUGIN.format(name="mine"))
    registry.scan_installed_plugins()
    message = refused(plugin("mine.py", PLUGIN.format(name="mine")))
    assert "as a loss at site/somebodys/parts.py:" in message and "as a loss at mine.py:" in message


def test_names_that_only_importing_shows_are_found_when_they_are_asked_for(installed, plugin):
    from lmlab.config import resolve

    installed(
        "from lmlab.registry import settings\n"
        "def theirs(x: int = 1) -> int:\n    'Theirs.'\n    return x\n"
        "settings.register('their' + 's')(theirs)\n",
        module="somebodys.parts",
    )
    assert resolve([], ["theirs.x = 7"], root="theirs").build() == 7


def test_an_installed_plugin_without_its_module_is_named(installed):
    installed("", module="somebodys_else")
    with pytest.raises(ConfigError, match=r"'somebodys' has no module 'somebodys_else'. Reinstall it"):
        registry.scan_installed_plugins()


def test_a_component_whose_module_cannot_be_imported_is_named(installed):
    installed("import not_installed_at_all\n" + PLUGIN.format(name="theirs"))
    registry.scan_installed_plugins()
    with pytest.raises(ConfigError, match=r"the loss 'theirs' \(.*parts.py:\d+\) cannot be imported: ModuleNotFound"):
        losses.get("theirs")


def test_decorators_are_read_through_any_path_to_the_registry(plugin):
    text = 'from lmlab import registry\n@registry.evaluators.register("theirs")\ndef f(x: int = 1): ...\n'
    (entry,) = registry.scan(Path(plugin("mine.py", text)), "mine")
    assert (entry.kind, entry.name, entry.qualname) == (evaluators.kind, "theirs", "f")


def test_a_decorator_inside_a_string_registers_nothing(plugin):
    text = '"""\n@models.register("no")\nclass No: ...\n"""\n'
    assert list(registry.scan(Path(plugin("mine.py", text)), "mine")) == []
