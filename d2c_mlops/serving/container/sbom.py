"""The bill of materials of an image, as CycloneDX: the model, what Python installs, by what each is needed."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement

from ...registry.versions import Version

if TYPE_CHECKING:
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression


def bill(site: Path, version: Version, bento: str, base: str) -> str:
    """Return the bill of what is in `site` and of the model as JSON; Debian's packages are added where the image is built."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    bom = Bom(serial_number=uuid5(NAMESPACE_URL, bento))
    image = Component(name=version.model, version=f"v{version.version}", type=ComponentType.CONTAINER, bom_ref="image",
                      properties=[Property(name="d2c:bento", value=bento), Property(name="d2c:base", value=base),
                                  Property(name="d2c:contract", value=version.schema.version)])  # fmt: skip
    bom.metadata.component = image
    model = Component(name=version.model, version=str(version.version), type=ComponentType.MACHINE_LEARNING_MODEL,
                      bom_ref="model", hashes=[HashType(alg=HashAlgorithm.SHA_256, content=version.sha256)])  # fmt: skip
    held = {key(found.name): found for found in distributions(path=[str(site)])}
    made = {
        name: Component(
            name=found.name,
            version=found.version,
            bom_ref=f"{name}=={found.version}",
            purl=PackageURL("pypi", name=name, version=found.version),
            description=next(iter(found.metadata.get_all("Summary") or ()), None),
            licenses=licenses(found),
        )
        for name, found in sorted(held.items())
    }
    for component in (model, *made.values()):
        bom.components.add(component)
    bom.register_dependency(image, [model, *made.values()])
    for name, component in made.items():
        bom.register_dependency(component, [made[each] for each in needs(held[name]) if each in made])
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def licenses(found: Distribution) -> list[LicenseExpression | DisjunctiveLicense]:
    """Return the license of a distribution as it tells it: an SPDX expression, a name, or a classifier."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    given = [line for name in ("License-Expression", "License") for line in found.metadata.get_all(name) or ()]
    listed = [line.rpartition(" :: ")[2] for line in found.metadata.get_all("Classifier") or () if "License" in line]
    text = next((line.strip().splitlines()[0][:100] for line in (*given, *listed) if line.strip()), "")
    return [LicenseFactory().make_from_string(text)] if text else []


def needs(found: Distribution) -> list[str]:
    """Return what a distribution requires, extras left out."""
    wanted = [Requirement(line) for line in found.requires or ()]
    return sorted({key(each.name) for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})})


def key(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
