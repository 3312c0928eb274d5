"""Checks of the installed packages."""

from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from s4eca.doctor.facts import Facts
from s4eca.doctor.findings import Finding

# 2026-04: these two stole credentials when they were imported (GHSA-w37p-236h-pfx3)
MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def check_packages(facts: Facts) -> list[Finding]:
    """Returns what is to be said about Python and the packages."""
    found = [*_python(facts), *_ranges(facts), *_malicious(facts), *_albumentations(facts), *_opencv(facts)]
    found += _torchvision(facts)
    if not any(finding.level == "fail" for finding in found):
        found.insert(0, Finding("ok", "packages", "all that s4eca needs is there, in versions that it was made for."))
    return found


def ranges(facts: Facts) -> list[tuple[str, str, str | None, str | None, bool]]:
    """Returns name, range, installed version, extra and whether it fits, for every requirement of s4eca."""
    rows: list[tuple[str, str, str | None, str | None, bool]] = []
    for text in facts.requires:
        requirement = Requirement(text)
        marker = str(requirement.marker or "")
        extra = marker.partition("extra ==")[2].strip(" \"'") or None
        name = canonicalize_name(requirement.name)
        installed = facts.packages.get(name)
        fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
        rows.append((name, str(requirement.specifier), installed, extra, fits))
    return rows


def _python(facts: Facts) -> Iterator[Finding]:
    if not SpecifierSet(facts.requires_python).contains(facts.python, prereleases=True):
        yield Finding(
            "fail", "python", f"Python {facts.python} is not {facts.requires_python}; make an environment with one."
        )


def _ranges(facts: Facts) -> Iterator[Finding]:
    for name, wanted, installed, extra, fits in ranges(facts):
        if fits or extra == "dev" or (extra is not None and installed is None):
            continue
        if installed is None:
            yield Finding("fail", name, f"{name} is not installed; pip install '{name}{wanted}'.")
        else:
            needs = "s4eca needs" if extra is None else f"the extra {extra} needs"
            yield Finding(
                "fail" if extra is None else "warning",
                name,
                f"{name} {installed} is installed and {needs} {wanted}; pip install '{name}{wanted}'.",
            )


def _malicious(facts: Facts) -> Iterator[Finding]:
    for name, versions in MALICIOUS.items():
        if facts.packages.get(name) in versions:
            yield Finding(
                "fail",
                name,
                f"{name} {facts.packages[name]} is a malicious release that steals credentials on import; uninstall "
                f"it, change what this account had access to, and pip install 'lightning>=2.6.6'.",
            )


def _albumentations(facts: Facts) -> Iterator[Finding]:
    if "albumentationsx" in facts.packages:
        yield Finding(
            "fail",
            "albumentationsx",
            "albumentationsx has the import name of albumentations and another licence (AGPL); pip uninstall "
            "albumentationsx, then pip install --force-reinstall albumentations==2.0.8.",
        )


def _opencv(facts: Facts) -> Iterator[Finding]:
    both = [name for name in OPENCV if name in facts.packages]
    if len(both) > 1:
        yield Finding(
            "warning",
            "opencv",
            f"{' and '.join(both)} are installed and overwrite each other's files; pip uninstall them all, then pip "
            "install opencv-python-headless.",
        )


def _torchvision(facts: Facts) -> Iterator[Finding]:
    """Torchvision is built against one version of torch, which its own metadata names."""
    installed = facts.packages.get("torch")
    for text in facts.torchvision_requires:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != "torch" or installed is None:
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            yield Finding(
                "fail",
                "torchvision",
                f"torchvision {facts.packages.get('torchvision')} was built for torch{requirement.specifier} and torch "
                f"{installed} is installed; install both in one command: pip install torch torchvision.",
            )
