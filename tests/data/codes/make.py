"""Writes the files of this folder in the form of the public VALL-E trainer (vall_e/emb/process.py and vall_e/data.py), with numpy and h5py.

The codes are (37 frame + 101 level) mod 1024. Usage: python3 make.py, in this folder.
"""
import os

import h5py
import numpy as np


def codes(levels, frames):
    return ((37 * np.arange(frames)[None, :] + 101 * np.arange(levels)[:, None]) % 1024).astype(np.uint16)


def save(path, array, **metadata):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        np.save(file, {"codes": array, "metadata": metadata})


# A second of EnCodec has 75 frames.
anna = {"language": "en", "sample_rate": 24000}
save("good/anna/one.enc", codes(8, 150)[None], original_length=48000, text="One, two.", phonemes="wˈʌn, (de)tˈuː(en).", **anna)
save("good/anna/two.enc", codes(8, 5)[None], duration=np.float64(0.5), text="Two", phonemes=["t", "ˈuː"], **anna)
save("good/ben/three.enc", codes(8, 90)[None], original_length=28800, sample_rate=24000)
dac = {"input_db": np.array([-13.5], np.float32), "chunk_length": 198, "channels": 1, "padding": True, "dac_version": "1.0.0"}
save("dac/carla/four.dac", codes(9, 80)[None], text="Four", language="auto", duration=0.93, **dac)
save("dac/carla/five.nem", codes(9, 80), text="Five", language="en", duration=0.93)
text = {"text": "Bad", "language": "en", "duration": 1.0}
save("bad/s/zeros.enc", np.zeros((1, 8, 75), np.uint16), **text)
save("bad/s/beyond.enc", codes(8, 75)[None] + 1000, **text)
save("bad/s/levels.enc", codes(9, 75)[None], **text)
save("bad/s/floats.enc", codes(8, 75)[None].astype(np.float32), **text)
save("bad/s/batch.enc", np.stack([codes(8, 75)] * 2), **text)
save("bad/s/text.enc", codes(8, 75)[None], **{**text, "text": 5})
with open("good/anna/one.enc", "rb") as file:
    whole = file.read()
open("bad/s/cut.enc", "wb").write(whole[: len(whole) // 2])

with h5py.File("data.h5", "w") as file:

    def add(key, array, **attributes):
        group = file.create_group(key)
        group.create_dataset("audio", data=array.T.astype(np.int16), compression="lzf")
        group.create_dataset("text", data=np.array([1, 5, 2], np.uint8), compression="lzf")
        for name, value in attributes.items():
            group.attrs[name] = value

    # Long enough for several chunks.
    add("training/group/anna/one", codes(8, 3000), text="One, two.", phonemes="wˈʌn, tˈuː.", language="en", duration=40.0)
    add("training/group/anna/two", codes(8, 5), text="Two", language="en", duration=0.5, similar=[1])
    add("training/group/ben/three", codes(8, 90), text="Drei", language="de", duration=1.2)
    add("validation/group/ben/four", codes(8, 90), text="Vier", language="de", duration=1.2)
    file.create_dataset("symmap", data="{}")
