/* The libraries where torch needs more than "success": handles, versions, an algorithm, the size of an image. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if __has_include(<cudnn_version.h>)
#include <cudnn_version.h>
#endif

extern void *standin_handle(void);
extern int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream);
extern long standin_matmuls, standin_collectives;

/* ---- cuBLAS */

int cublasCreate_v2(void **handle) { *handle = standin_handle(); return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }
int cublasGetVersion_v2(void *handle, int *version) { *version = 130000; return 0; }
size_t cublasLtGetVersion(void) { return 130000; }
int cublasSgemm_v2(void) { standin_matmuls++; return 0; }
int cublasSgemmStridedBatched(void) { standin_matmuls++; return 0; }
int cublasGemmEx(void) { standin_matmuls++; return 0; }
int cublasGemmStridedBatchedEx(void) { standin_matmuls++; return 0; }
int cublasLtMatmul(void) { standin_matmuls++; return 0; }
int cublasLtCreate(void **handle) { *handle = standin_handle(); return 0; }
int cublasLtMatmulDescCreate(void **desc, int compute, int scale) { *desc = standin_handle(); return 0; }
int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    *layout = standin_handle();
    return 0;
}
int cublasLtMatmulPreferenceCreate(void **preference) { *preference = standin_handle(); return 0; }
/* One algorithm, all zeros: no workspace, status success. */
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,
                                   int requested, void *results, int *found) {
    memset(results, 0, 96); /* sizeof(cublasLtMatmulHeuristicResult_t) */
    *found = 1;
    return 0;
}

/* ---- cuSOLVER, cuSPARSE */

int cusolverDnCreate(void **handle) { *handle = standin_handle(); return 0; }
int cusparseCreate(void **handle) { *handle = standin_handle(); return 0; }

/* ---- cuDNN: only asked who it is; site/sitecustomize.py switches it off */

#ifndef CUDNN_VERSION
#define CUDNN_VERSION 92000
#endif
size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
int cudnnGetProperty(int which, int *value) { /* major, minor, patch */
    *value = which == 0 ? CUDNN_VERSION / 10000 : which == 1 ? CUDNN_VERSION / 100 % 100 : CUDNN_VERSION % 100;
    return 0;
}
size_t cudnnGetCudartVersion(void) { return 13000; }
int cudnnCreate(void **handle) { *handle = standin_handle(); return 0; }

/* ---- nvJPEG: the size that the file states, and no hardware decoder */

int nvjpegCreateEx(int backend, void *device, void *pinned, unsigned flags, void **handle) {
    if (backend == 3) return 7; /* NVJPEG_BACKEND_HARDWARE: NVJPEG_STATUS_ARCH_MISMATCH */
    *handle = standin_handle();
    return 0;
}
int nvjpegCreateSimple(void **handle) { *handle = standin_handle(); return 0; }
int nvjpegGetImageInfo(void *handle, const unsigned char *data, size_t length, int *components, int *subsampling,
                       int *widths, int *heights) {
    for (size_t at = 2; at + 9 < length && data[at] == 0xff; at += 2 + (data[at + 2] << 8 | data[at + 3])) {
        if (data[at + 1] < 0xc0 || data[at + 1] > 0xc2) continue; /* not the start of a frame */
        *components = data[at + 9];
        *subsampling = 0;
        for (int i = 0; i < 4; i++) {
            heights[i] = i < *components ? data[at + 5] << 8 | data[at + 6] : 0;
            widths[i] = i < *components ? data[at + 7] << 8 | data[at + 8] : 0;
        }
        return 0;
    }
    return 3; /* NVJPEG_STATUS_BAD_JPEG */
}

/* ---- NCCL: a group forms through torch's own store; in its collectives every rank has what this one has */

typedef struct { int ranks, rank; } Communicator;
typedef struct { char bytes[128]; } UniqueId;
#ifndef STANDIN_NCCL /* build_standin.py reads it from nccl.h, whose prototypes these functions need not follow */
#define STANDIN_NCCL 22700
#endif
int ncclGetVersion(int *version) { *version = STANDIN_NCCL; return 0; }
int ncclGetUniqueId(void *id) { memset(id, 7, 128); return 0; }
int ncclCommInitRank(void **comm, int ranks, UniqueId id, int rank) {
    Communicator *c = calloc(1, sizeof *c);
    c->ranks = ranks, c->rank = rank;
    *comm = c;
    return 0;
}
int ncclCommInitRankConfig(void **comm, int ranks, UniqueId id, int rank, void *config) {
    return ncclCommInitRank(comm, ranks, id, rank);
}
int ncclCommCount(void *comm, int *count) { *count = ((Communicator *)comm)->ranks; return 0; }
int ncclCommUserRank(void *comm, int *rank) { *rank = ((Communicator *)comm)->rank; return 0; }
int ncclCommGetAsyncError(void *comm, int *error) { *error = 0; return 0; }
const char *ncclGetErrorString(int error) { return "error of the stand-in"; }
const char *ncclGetLastError(void *comm) { return ""; }
/* Bytes of a value, by the number of its ncclDataType_t: int8, uint8, (u)int32, (u)int64, half, float, double, bf16. */
static size_t bytes_of(int type) {
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return type >= 0 && type < 10 ? sizes[type] : 1;
}
static int give(const void *from, void *to, size_t bytes) {
    standin_collectives++;
    if (from != to) cudaMemcpyAsync(to, from, bytes, 3, NULL);
    return 0;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, void *comm, void *stream) {
    return give(from, to, count * bytes_of(type));
}
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, void *comm, void *stream) {
    return give(from, to, count * bytes_of(type));
}
int ncclReduceScatter(const void *from, void *to, size_t count, int type, int op, void *comm, void *stream) {
    return give(from, to, count * bytes_of(type));
}
int ncclAllGather(const void *from, void *to, size_t count, int type, void *comm, void *stream) {
    size_t bytes = count * bytes_of(type);
    for (int rank = 0; rank < ((Communicator *)comm)->ranks; rank++) give(from, (char *)to + rank * bytes, bytes);
    return 0;
}
