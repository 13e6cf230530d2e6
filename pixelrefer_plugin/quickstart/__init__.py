"""The embedded default: real digits on real photographs, and a tiny VideoLLaMA3 that knows them."""
