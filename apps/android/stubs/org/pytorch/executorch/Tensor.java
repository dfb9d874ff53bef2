package org.pytorch.executorch;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;

/** Signatures of org.pytorch:executorch-android 1.4.0, to type-check against; never packaged. */
public abstract class Tensor {
    public static Tensor fromBlobUnsigned(ByteBuffer data, long[] shape) {
        throw new UnsupportedOperationException();
    }

    public static Tensor fromBlob(FloatBuffer data, long[] shape) {
        throw new UnsupportedOperationException();
    }

    public float[] getDataAsFloatArray() {
        throw new UnsupportedOperationException();
    }
}
