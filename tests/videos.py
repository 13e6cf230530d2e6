"""Small real videos for tests. Frame i of `grey_frames` is plain grey of `level(i)`, so its index can be read off."""

import struct
from fractions import Fraction

import av
import numpy as np

HW = (48, 64)


def level(index):
    """The grey of frame `index`: 6 levels apart, so that lossy codecs keep neighbours apart, for 40 frames."""
    return 10 + 6 * (index % 40)


def grey_frames(count, hw=HW):
    """`(count, H, W, 3)` uint8, each frame of its own grey."""
    levels = np.array([level(index) for index in range(count)], np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, *hw, 3)).copy()


def indices_of(frames_nhwc):
    """Which of `grey_frames` these are, however a codec changed them a little."""
    return [round((float(frame.mean()) - 10) / 6) for frame in frames_nhwc]


def write_video(
    path, frames=12, *, codec="libx264", fps=30, ticks=None, pix_fmt="yuv420p", options=None, **open_options
):
    """Encode frames, or so many `grey_frames`; returns `path`.

    Args:
        path: where; its suffix says the format.
        frames: `(N, H, W, 3)` uint8, or a count.
        codec: FFmpeg's name of the encoder.
        fps: ticks per second.
        ticks: when each frame is shown; by default one tick after another.
        pix_fmt: FFmpeg's name of the pixel format.
        options: of the encoder.
        open_options: of the container.
    """
    frames = grey_frames(frames) if isinstance(frames, int) else frames
    with av.open(str(path), "w", **open_options) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, fps)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index if ticks is None else ticks[index], Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source, target, *, shift=0, times=1, **open_options):
    """Copy a video's packets, `times` over, `shift` ticks later; returns `target`."""
    with av.open(str(source)) as reader, av.open(str(target), "w", **open_options) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        length = reader.streams.video[0].frames
        for repeat in range(times):
            reader.seek(0)
            for packet in reader.demux(video=0):
                if packet.size:
                    offset = repeat * length * packet.duration + shift
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    writer.mux(packet)
    return target


def set_display_matrix(path, matrix):
    """Write the nine numbers of an mp4's track header, `a b u c d v x y w`, as a phone that was turned does."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    scales = (16, 16, 30) * 3
    data[start : start + 36] = struct.pack(">9i", *(round(m * 2**bits) for m, bits in zip(matrix, scales, strict=True)))
    path.write_bytes(data)


def truncate(path, share):
    """Cut a file off after a share of its bytes; returns `path`."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
