"""The wall: frames, the network side's client and the secret side's process."""
