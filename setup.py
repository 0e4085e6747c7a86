"""Build iris_serve from `settings.ini`, the one place for its name, version and requirements."""

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
extras = {
    name: settings[f"{name}_requirements"].split()
    for name in ("retrain", "parquet", "lambda", "formats", "dev")
}
everything = [name for extra in extras.values() for name in extra]
extras |= {"dev": everything, "docs": settings["docs_requirements"].split()}


class BuildWithNotebook(build_py):
    """Put the retraining notebook beside the modules, so that an installed package can retrain."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / settings["lib_path"] / "retrain.ipynb"
            shutil.copyfile(ROOT / settings["nbs_path"] / "retrain.ipynb", target)


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    url=settings["git_url"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=settings["keywords"],
    python_requires=f">={settings['min_python']}",
    packages=find_packages(include=[settings["lib_path"], settings["lib_path"] + ".*"]),
    package_data={settings["lib_path"]: settings["package_data"].split()},
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": settings["console_scripts"].split()},
    cmdclass={"build_py": BuildWithNotebook},
)
