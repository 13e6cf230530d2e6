"""OCI, the Object-Centric Infusion of PixelRefer-Lite, on SAOT's tokens. Knows features and masks; no backbone."""

from pixelrefer_plugin import hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register):
    from pixelrefer_plugin import AdapterSpec

    from .config import OFFICIAL, OciConfig
    from .module import Oci
    from .plan import plan, share_local_crop

    register(
        AdapterSpec(
            name="oci",
            config=OciConfig,
            plan=plan,
            build=Oci.build,
            framework="object-only",
            presets={"official": OFFICIAL},
            plan_together=share_local_crop,
            frame_label=OciConfig.label_of_frame,
        )
    )
