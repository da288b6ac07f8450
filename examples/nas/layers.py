"""What networks are made of, on plain numpy with gradients by autograd: convolutions, pools, Adam, and the digits.

Images are arrays of shape (examples, height, width, channels). Small enough to read, fast enough for a laptop's CPU.
"""

import autograd.numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def digits(examples, seed=0):
    """Scikit-learn's handwritten digits, 8 x 8 pixels: images and labels to train on, images and labels to judge by."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1)
    return train_test_split(images, labels, train_size=examples, test_size=400, random_state=seed, stratify=labels)


def windows(images, size, dilation=1):
    """The image shifted to each place of a window: what the window's centre sees there."""
    reach = dilation * (size - 1)
    before = reach // 2
    padded = np.pad(images, ((0, 0), (before, reach - before), (before, reach - before), (0, 0)), mode="constant")
    height, width = images.shape[1:3]
    for row in range(size):
        for column in range(size):
            top, left = row * dilation, column * dilation
            yield row, column, padded[:, top : top + height, left : left + width, :]


def convolution(images, weights, dilation=1):
    """`weights`: (size, size, channels in, channels out)."""
    return sum(seen @ weights[row, column] for row, column, seen in windows(images, len(weights), dilation))


def depthwise(images, weights, dilation=1):
    """`weights`: (size, size, channels)."""
    return sum(seen * weights[row, column] for row, column, seen in windows(images, len(weights), dilation))


def pooled(images, size, kind):
    """The same height and width: each pixel becomes the largest, or the mean, of those around it."""
    seen = [shifted for _, _, shifted in windows(images, size)]
    if kind == "avg_pooling":
        return sum(seen) / len(seen)
    largest = seen[0]
    for shifted in seen[1:]:
        largest = np.maximum(largest, shifted)
    return largest


def shrunk(images, height):
    """Down to this height, by the means of squares."""
    factor = images.shape[1] // height
    if factor <= 1:
        return images
    count, _, _, channels = images.shape
    cut = images[:, : height * factor, : height * factor]
    return np.mean(np.reshape(cut, (count, height, factor, height, factor, channels)), axis=(2, 4))


def normalised(images):
    return (images - np.mean(images, axis=(0, 1, 2))) / np.sqrt(np.var(images, axis=(0, 1, 2)) + 1e-5)


def relu(values):
    return np.maximum(values, 0)


def softmax(logits):
    exponents = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return exponents / np.sum(exponents, axis=-1, keepdims=True)


def loss_of(logits, labels):
    """The mean cross entropy."""
    return -np.mean(np.log(softmax(logits)[np.arange(len(labels)), labels] + 1e-12))


def accuracy_of(logits, labels):
    return float(np.mean(np.argmax(logits, axis=1) == labels))


class Adam:
    """Weights by name, each moved against its gradient."""

    def __init__(self, rate):
        self.rate, self.steps, self.means, self.squares = rate, 0, {}, {}

    def step(self, weights, gradient):
        self.steps += 1
        for name, slope in gradient.items():
            self.means[name] = mean = 0.9 * self.means.get(name, 0) + 0.1 * slope
            self.squares[name] = square = 0.999 * self.squares.get(name, 0) + 0.001 * slope**2
            step = mean / (1 - 0.9**self.steps) / (np.sqrt(square / (1 - 0.999**self.steps)) + 1e-8)
            weights[name] = weights[name] - self.rate * step
