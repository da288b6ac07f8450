"""Stands in for Katib's tf-mnist-with-summaries trainer: its arguments, its event files, no training, no TensorFlow."""

import argparse
import math
import os
import pathlib
import socket
import struct
import time

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def checksum(data):
    """CRC-32C, masked as event files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def message(number, data):
    """A field of a protocol buffer that is a text or a message; both are short."""
    return bytes([number << 3 | 2, len(data)]) + data


class Events:
    """An event file: records of a length, an Event, and a checksum of each."""

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self.file = (directory / name).open("wb")
        self.write(message(3, b"brain.Event:2"))

    def scalar(self, tag, value, step):
        summary = message(1, message(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        self.write(b"\x10" + bytes([step]) + message(5, summary))

    def write(self, rest):
        event = b"\x09" + struct.pack("<d", time.time()) + rest
        length = struct.pack("<Q", len(event))
        self.file.write(length + checksum(length) + event + checksum(event))
        self.file.flush()


parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--learning-rate", type=float, default=0.001)
parser.add_argument("--log-path", default="logs/mnist-with-summaries")
args, _ = parser.parse_known_args()

best = 0.05 + 0.3 * abs(math.log10(args.learning_rate / 0.02)) + 0.001 * abs(args.batch_size - 48)
writers = {name: Events(pathlib.Path(args.log_path) / name) for name in ("train", "test")}
for epoch in range(1, min(args.epochs, 127) + 1):
    loss = best + 2.2 * math.exp(-1.5 * epoch)
    for name, worse in (("train", 0.0), ("test", 0.02)):
        writers[name].scalar("loss", loss + worse, epoch)
        writers[name].scalar("accuracy", math.exp(-(loss + worse) / 3), epoch)
    print(f"Epoch {epoch}, Loss: {loss:.4f}, Accuracy: {100 * math.exp(-loss / 3):.2f}")
