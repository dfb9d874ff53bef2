package org.pytorch.executorch;

/** Signatures of org.pytorch:executorch-android 1.4.0, to type-check against; never packaged. */
public class Module {
    public static final int LOAD_MODE_MMAP = 1;

    public static Module load(String modelPath, int loadMode, int numThreads) {
        throw new UnsupportedOperationException();
    }

    public EValue[] forward(EValue... inputs) {
        throw new UnsupportedOperationException();
    }

    public void loadMethod(String methodName) {
        throw new UnsupportedOperationException();
    }

    public void destroy() {
        throw new UnsupportedOperationException();
    }
}
