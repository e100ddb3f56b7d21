"""The names of a network's tensors, with and without those of what the network was wrapped in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

# Of DataParallel and DistributedDataParallel, of torch.compile, of FSDP: they wrap a network, or parts of it.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
AVERAGED = "n_averaged"  # in which torch's AveragedModel, which calls the network module, counts its updates

Reading = tuple[str, Mapping[str, str]]  # what is left off, and of each name that remains the whole one


def without_wrappers(name: str) -> str:
    """A name without the wrappers in it, wherever they stand: features.0.weight for module.features._orig_mod.0.weight."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def unwrapped(names: Collection[str]) -> list[Reading]:
    """The names as they are and, where wrappers stand in them, without those, unless two names would become one."""
    result: list[Reading] = [("", {name: name for name in names})]
    parts = {part for name in names for part in name.split(".")}
    if left_off := [f"{wrapper}." for wrapper in WRAPPERS if wrapper in parts]:
        short = {without_wrappers(name): name for name in names}
        if len(short) == len(names) and "" not in short:
            result.append((" and ".join(left_off), short))
    return result


def readings(names: Collection[str]) -> Iterator[Reading]:
    """The names as they are, without what all of them begin with ("module.", "model.", "_orig_mod.module."), without wrappers, and
    without both."""
    for left_off, short in unwrapped(names):
        yield left_off, short
        prefix = ""
        while len(first := {name.partition(".")[0] for name in short}) == 1 and all("." in name for name in short):
            prefix += f"{first.pop()}."
            short = {name.partition(".")[2]: whole for name, whole in short.items()}
            yield " and ".join(filter(None, (left_off, prefix))), short
