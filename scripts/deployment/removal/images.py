"""The images that deployments of this project have left, and which of them nobody needs any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from deployment.removal.contents import Contents, megabytes, plural
from deployment.removal.references import Reference, references, templates_of_removed
from deployment.removal.repository import Image, ImagesError, Repository, stored_bytes
from infrastructure.config import Config

# Deployments push their image first. Only then does a template or a Lambda name it.
NEW = timedelta(days=1)


@dataclass(frozen=True)
class Sorted:
    """The images of the repository.

    unused: ours that nobody needs. needed: ours that a Lambda or a stack names, or that somebody has given a tag of
    their own. new: ours that a deployment under way may be about to name. others: those of other CDK apps.
    """

    unused: list[Image] = field(default_factory=list)
    needed: list[Image] = field(default_factory=list)
    new: list[Image] = field(default_factory=list)
    others: list[Image] = field(default_factory=list)

    @property
    def all(self) -> list[Image]:
        return [*self.unused, *self.needed, *self.new, *self.others]


def sorted_out(
    images: Iterable[Image], references: Collection[Reference], of_stack: Collection[str], now: datetime
) -> Sorted:
    """of_stack: tags and digests of the images of the stack that goes. `references` are those of everybody else."""
    found = Sorted()
    for image in images:
        was_of_stack = not image.names.isdisjoint(of_stack)
        if not image.is_ours and not was_of_stack:
            found.others.append(image)
        elif image.foreign_tags.difference(of_stack) or any(reference.names(image) for reference in references):
            found.needed.append(image)
        elif now - image.pushed_at < NEW and not was_of_stack:
            found.new.append(image)
        else:
            found.unused.append(image)
    return found


class Images:
    """Which images of this project nobody needs once the stack is gone.

    Images of the stack are those that its Lambdas run or its template names, also that of a stack of its name that was
    removed earlier: a removal may have been stopped before the images were deleted.
    """

    def __init__(self, config: Config, stack: Contents | None) -> None:
        self._config = config
        self._stack = stack
        self._of_stack: set[str] = set()
        self._repository = Repository(config.account, config.region)

    def look(self) -> Sorted:
        """Raises ImagesError."""
        images = self._repository.images()
        if not images:
            return Sorted()
        found = references(self._config.region)
        own = [each for each in found if self._stack and each.is_of(self._stack.name, self._stack.lambdas)]
        texts = [*(each.text for each in own), *templates_of_removed(self._config.stack_name, self._config.region)]
        self._of_stack |= self._repository.named_in("\n".join(texts))
        others = [each for each in found if each not in own]
        result = sorted_out(images, others, self._of_stack, datetime.now(UTC))
        if result.unused and (guests := self._repository.guests()):
            raise ImagesError(
                f"the policy of {self._repository.name} lets other accounts in ({', '.join(guests)}), and nobody knows "
                "here whether their Lambdas use the images"
            )
        return result

    def delete(self, announced: Collection[Image]) -> None:
        """Deletes those of the announced images that are still unused. Raises ImagesError if any is still there."""
        self._stack = None  # what is still there of it counts as in use
        digests = {image.digest for image in announced}
        before = self.look()
        unused = [image for image in before.unused if image.digest in digests]
        problems = self._repository.delete(unused)
        left = {image.digest for image in self._repository.images()}
        gone = [image for image in unused if image.digest not in left]
        print(f"\nDeleted {plural(len(gone), 'image')}, {megabytes(freed_by(before.all, gone))}.", flush=True)
        if len(unused) < len(digests):
            print(f"{plural(len(digests) - len(unused), 'image')} stayed: something else uses them now.", flush=True)
        if problems:
            raise ImagesError("\n  ".join(["these images couldn't be deleted:", *problems]))


def freed_by(images: Iterable[Image], going: Collection[Image]) -> int:
    """Bytes. Layers that other images share stay."""
    every = list(images)
    return stored_bytes(every) - stored_bytes(image for image in every if image not in going)


def report(found: Sorted) -> str:
    """What becomes of the images of this project; "" if there are none."""
    lines = []
    if found.unused:
        size = megabytes(freed_by(found.all, found.unused))
        lines.append(f"{plural(len(found.unused), 'image')}, {size}, that no other Lambda or stack here uses")
    if found.needed:
        count = plural(len(found.needed), "image")
        lines.append(f"{count} that other Lambdas or stacks use, or with a foreign tag; they stay")
    if found.new:
        lines.append(f"{plural(len(found.new), 'image')} of the last day, for deployments under way; they stay")
    return "\n".join(f"  {line}" for line in lines)
