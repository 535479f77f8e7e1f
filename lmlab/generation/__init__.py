"""From a trained model to text: samplers, the compiled decoding loop, and the hook that writes samples."""
