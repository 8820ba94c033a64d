/* Decode only the pixels of a box of a JPEG, with libjpeg-turbo. See crop_decode.py. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <jpeglib.h>

#ifndef LIBJPEG_TURBO_VERSION_NUMBER
#error "jpeg_crop_scanline is libjpeg-turbo's: install its headers (libjpeg-dev, libjpeg-turbo-devel)"
#endif

struct trouble {
    struct jpeg_error_mgr base;
    jmp_buf back;
};

static void give_up(j_common_ptr info) { longjmp(((struct trouble *)info->err)->back, 1); }

static void stay_quiet(j_common_ptr info) { (void)info; }

static void count_warning(j_common_ptr info, int level) {
    if (level < 0) info->err->num_warnings++;
}

/* out: h rows of w pixels B, G, R. 0: done. 1: an error. 2: the file is damaged before the end of the box. */
int mim_mm_crop(const unsigned char *data, unsigned long size, int x, int y, int w, int h, unsigned char *out) {
    struct jpeg_decompress_struct jpeg;
    struct trouble errors;
    jpeg.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = give_up;
    errors.base.output_message = stay_quiet;
    errors.base.emit_message = count_warning;
    if (setjmp(errors.back)) {
        jpeg_destroy_decompress(&jpeg);
        return 1;
    }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, data, size);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_EXT_BGR;
    jpeg_start_decompress(&jpeg);
    if (x < 0 || y < 0 || w < 1 || h < 1 || (JDIMENSION)(x + w) > jpeg.output_width ||
        (JDIMENSION)(y + h) > jpeg.output_height) {
        jpeg_destroy_decompress(&jpeg);
        return 1;
    }
    /* One MCU more on both sides: the smooth upsampling of chroma looks at its neighbours. */
    JDIMENSION margin = (JDIMENSION)jpeg.max_h_samp_factor * DCTSIZE;
    JDIMENSION left = (JDIMENSION)x > margin ? x - margin : 0;
    JDIMENSION right = x + w + margin < jpeg.output_width ? x + w + margin : jpeg.output_width;
    JDIMENSION width = right - left;
    if (width < jpeg.output_width) jpeg_crop_scanline(&jpeg, &left, &width); /* moves left to the edge of an MCU */
    JSAMPARRAY row = (*jpeg.mem->alloc_sarray)((j_common_ptr)&jpeg, JPOOL_IMAGE, jpeg.output_width * 3, 1);
    if (y > 0) jpeg_skip_scanlines(&jpeg, y);
    for (int line = 0; line < h; line++) {
        jpeg_read_scanlines(&jpeg, row, 1);
        memcpy(out + (size_t)line * w * 3, row[0] + (size_t)(x - left) * 3, (size_t)w * 3);
    }
    int damaged = errors.base.num_warnings > 0;
    jpeg_destroy_decompress(&jpeg); /* the rows below the box are not decoded */
    return damaged ? 2 : 0;
}
