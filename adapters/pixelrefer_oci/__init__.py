"""OCI, the Object-Centric Infusion of PixelRefer-Lite, on SAOT's tokens. Knows features and masks; no backbone."""

from pixelrefer_plugin import hookimpl


@hookimpl
def register_adapters(register):
    from pixelrefer_plugin import AdapterSpec

    from .config import OciConfig
    from .module import Oci
    from .plan import plan

    register(AdapterSpec(name="oci", config=OciConfig, plan=plan, build=Oci.build, framework="object-only"))
