package org.pytorch.executorch;

/** Signatures of org.pytorch:executorch-android 1.4.0, to type-check against; never packaged. */
public class EValue {
    public static EValue from(Tensor tensor) {
        throw new UnsupportedOperationException();
    }

    public Tensor toTensor() {
        throw new UnsupportedOperationException();
    }
}
