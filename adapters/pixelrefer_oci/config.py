"""Options of OCI: SAOT's, and those of the two attentions. The defaults are the paper's."""

from dataclasses import dataclass

from pixelrefer_saot.config import SaotConfig

from pixelrefer_plugin import check_field


@dataclass(frozen=True)
class OciConfig(SaotConfig):
    """Options of Object-Centric Infusion (PixelRefer §4.3), besides those of SAOT.

    Attributes:
        local_px: side of the square that the object's surroundings are resized to, in pixels.
        global_px: side of the square that the whole image is resized to, in pixels.
        num_heads: heads of each attention; must divide the tower's width.
        use_local: infuse what surrounds the object. Off, its attention does not exist (Table 9).
        use_global: infuse the whole image. Off, its attention does not exist (Table 9).
    """

    local_px: int = 224
    global_px: int = 336
    num_heads: int = 8
    use_local: bool = True
    use_global: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("local_px", "global_px", "num_heads"):
            value = getattr(self, name)
            check_field(type(value) is int and value >= 1, self, name, "an integer >= 1")
        for switch in ("use_local", "use_global"):
            check_field(isinstance(getattr(self, switch), bool), self, switch, "True or False")

    @property
    def contexts(self) -> tuple[str, ...]:
        """What is infused, in this order: the views after the object's crop, and the attentions that read them."""
        used = {"local": self.use_local, "global": self.use_global}
        return tuple(name for name, is_used in used.items() if is_used)
