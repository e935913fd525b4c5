"""Packages that are imported at their first use, in a fresh process each: the real ones."""

import subprocess
import sys

import pytest

BEGIN = "import sys; from envtune.engine import later; later.put_off()\n"


def _python(code: str, begin: str = BEGIN) -> str:
    done = subprocess.run(
        [sys.executable, "-c", begin + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_the_imports_ask_for_brings_nothing() -> None:
    code = (
        "import importlib.util, wandb, networkx as nx\n"
        "from sklearn.metrics import f1_score, matthews_corrcoef, roc_curve\n"
        "from scipy.stats import bootstrap, pearsonr, spearmanr\n"
        "def graph() -> nx.DiGraph: ...\n"
        "assert wandb.run is None and hasattr(wandb, 'run')\n"
        "assert importlib.util.find_spec('wandb').origin.endswith('wandb/__init__.py')\n"
        "heavy = {'wandb.sdk', 'networkx.classes', 'sklearn', 'scipy', 'numpy', 'pandas'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    assert _python(code) == "[]"


def test_what_is_known_of_a_package_is_what_it_says_itself() -> None:
    code = (
        "from envtune.engine.later import PACKAGES\n"
        "import importlib\n"
        "for package, known in PACKAGES.items():\n"
        "    module = importlib.import_module(package)\n"
        "    for name, value in known.items():\n"
        "        real = getattr(module, name)\n"
        "        assert callable(real) if callable(value) else real is value, (package, name)\n"
    )
    assert _python(code, begin="") == ""


@pytest.mark.parametrize(
    "use",
    [
        "print(nx.__version__ and curve([0, 1], [.1, .9])[1].tolist())",
        "from sklearn.metrics import accuracy_score\nprint(curve([0, 1], [.1, .9])[1].tolist())",
        "import sklearn.metrics\nprint(sklearn.metrics.roc_curve([0, 1], [.1, .9])[1].tolist())",
        "from sklearn import metrics\nprint(metrics.roc_curve([0, 1], [.1, .9])[1].tolist())",
        "import sklearn.metrics.cluster\nprint(curve([0, 1], [.1, .9])[1].tolist())",
    ],
)
def test_a_use_brings_the_real_one(use: str) -> None:
    code = "import networkx as nx\nfrom sklearn.metrics import roc_curve as curve\n"
    assert _python(code + use) == "[0.0, 1.0, 1.0]"


def test_a_part_comes_after_its_package_and_once() -> None:
    code = (
        "import networkx as before\n"
        "import networkx.classes.digraph as part\n"
        "import networkx as after\n"
        "assert type(after).__name__ == 'module'\n"
        "assert sys.modules['networkx.classes.digraph'] is part\n"
        "assert part.__spec__.name == part.__name__ and part.__spec__.loader.path == part.__file__\n"
        "assert before.DiGraph is after.DiGraph is part.DiGraph\n"
        "print(isinstance(before.DiGraph(), part.DiGraph))"
    )
    assert _python(code) == "True"


def test_what_is_set_is_set_in_the_real_one_and_read_from_it() -> None:
    code = (
        "import wandb as before\n"
        "before.planted = 7\n"
        "import wandb as after\n"
        "after.run = 'a run'\n"
        "print(after.planted, before.run, before is after)"
    )
    assert _python(code) == "7 a run False"


def test_a_package_that_is_not_there_stays_so_and_one_that_is_loaded_stays_what_it_is() -> None:
    code = (
        "import sys, networkx\n"
        "from envtune.engine import later\n"
        "later.PACKAGES['no_such_package'] = {}\n"
        "later.put_off()\n"
        "assert sys.modules['networkx'] is networkx and 'no_such_package' not in sys.modules\n"
        "try:\n    import no_such_package\n"
        "except ModuleNotFoundError as error:\n    print(error.name)"
    )
    assert _python(code, begin="") == "no_such_package"
