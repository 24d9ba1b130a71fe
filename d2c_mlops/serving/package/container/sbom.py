"""Bill of materials (CycloneDX) of an image: the model, Python distributions and their dependencies."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement

from d2c_mlops.registry.versions import Version

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression


def bill_of_materials(site: Path, version: Version, bento: str, base: str) -> str:
    """Return the bill of materials of `site` and the model as JSON; Debian's packages are added during the build."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    bom = Bom(serial_number=uuid5(NAMESPACE_URL, bento))
    image = Component(name=version.model, version=f"v{version.version}", type=ComponentType.CONTAINER, bom_ref="image",
                      properties=[Property(name="d2c:bento", value=bento), Property(name="d2c:base", value=base),
                                  Property(name="d2c:contract", value=version.schema.version)])  # fmt: skip
    bom.metadata.component = image
    model = Component(name=version.model, version=str(version.version), type=ComponentType.MACHINE_LEARNING_MODEL,
                      bom_ref="model", hashes=[HashType(alg=HashAlgorithm.SHA_256, content=version.sha256)])  # fmt: skip
    bom.components.add(model)
    add_distributions(bom, image, [model], distributions(path=[str(site)]))
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def project_bill(name: str) -> str:
    """Return the bill of materials of this interpreter and of Debian's packages as JSON."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    from d2c_mlops.serving.package.container.image_preparation import system_packages

    bom = Bom(serial_number=uuid5(NAMESPACE_URL, name))
    image = Component(name=name, type=ComponentType.CONTAINER, bom_ref="image")
    bom.metadata.component = image
    add_distributions(bom, image, [], distributions())
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    written["components"] += system_packages() if Path("/etc/os-release").is_file() else []
    return json.dumps(written, indent=1)


def add_distributions(
    bom: Bom, image: Component, first: list[Component], distributions: Iterable[Distribution]
) -> None:
    """Add distributions with their dependencies to a bill; the image depends on all of them."""
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    installed: dict[str, Distribution] = {}
    for distribution in distributions:
        installed.setdefault(
            normalised_name(distribution.name), distribution
        )  # if a distribution is installed twice, the imported one counts
    components = {
        name: Component(
            name=distribution.name,
            version=distribution.version,
            bom_ref=f"{name}=={distribution.version}",
            purl=PackageURL("pypi", name=name, version=distribution.version),
            description=next(iter(distribution.metadata.get_all("Summary") or ()), None),
            licenses=licenses(distribution),
        )
        for name, distribution in sorted(installed.items())
    }
    for component in components.values():
        bom.components.add(component)
    bom.register_dependency(image, [*first, *components.values()])
    for name, component in components.items():
        bom.register_dependency(
            component, [components[need] for need in requirements_of(installed[name]) if need in components]
        )


def licenses(distribution: Distribution) -> list[LicenseExpression | DisjunctiveLicense]:
    """Return the license in a distribution's metadata: an SPDX expression, a name, or a classifier."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    declared = [
        line for name in ("License-Expression", "License") for line in distribution.metadata.get_all(name) or ()
    ]
    listed = [
        line.rpartition(" :: ")[2] for line in distribution.metadata.get_all("Classifier") or () if "License" in line
    ]
    text = next((line.strip().splitlines()[0][:100] for line in (*declared, *listed) if line.strip()), "")
    return [LicenseFactory().make_from_string(text)] if text else []


def requirements_of(distribution: Distribution) -> list[str]:
    """Return the requirements of a distribution without extras."""
    requirements = [Requirement(line) for line in distribution.requires or ()]
    return sorted(
        {
            normalised_name(requirement.name)
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        }
    )


def normalised_name(name: str) -> str:
    """Return a distribution's normalised name."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":  # runs in the project's image during the build
    Path(sys.argv[1]).write_text(project_bill("project"), encoding="utf-8")
