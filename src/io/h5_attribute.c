/* Attributes: scalars, and texts of fixed size; see fb3/h5.h. */
#include "h5_internal.h"

#include <stdlib.h>
#include <string.h>

bool fb3_h5_has_attribute(hid_t object, const char *name)
{
    fb3_h5_start();
    bool there = H5Aexists(object, name) > 0;
    (void)H5Eclear2(H5E_DEFAULT);
    return there;
}

static fb3_status write_attribute(hid_t object, const char *name, hid_t type, const void *value)
{
    char file[FB3_H5_NAME_BYTES];
    fb3_status status = FB3_OK;
    hid_t attribute = H5I_INVALID_HID, space = H5Screate(H5S_SCALAR);
    FB3_H5_GOTO(space, done, FB3_FAILED, "cannot set up HDF5 for attribute %s", name);
    FB3_H5_GOTO(attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), done, FB3_FAILED,
                "cannot write attribute %s of %s", name, fb3_h5_file_of(object, file));
    FB3_H5_GOTO(H5Awrite(attribute, type, value), done, FB3_FAILED, "cannot write attribute %s of %s", name,
                fb3_h5_file_of(object, file));
done:
    if (attribute >= 0) (void)H5Aclose(attribute);
    if (space >= 0) (void)H5Sclose(space);
    return status;
}

/* Opens a scalar attribute of the class; the caller closes both. */
static fb3_status open_attribute(hid_t object, const char *name, H5T_class_t class, hid_t *attribute, hid_t *type)
{
    char file[FB3_H5_NAME_BYTES];
    *attribute = *type = H5I_INVALID_HID;
    htri_t there = H5Aexists(object, name);
    FB3_H5(there, FB3_INPUT, "cannot read the attributes of %s; the file is damaged", fb3_h5_file_of(object, file));
    FB3_REQUIRE(there, FB3_INPUT, "%s has no attribute %s; it is not a file of the kind that is needed here",
                fb3_h5_file_of(object, file), name);
    FB3_H5(*attribute = H5Aopen(object, name, H5P_DEFAULT), FB3_INPUT, "cannot open attribute %s of %s", name,
           fb3_h5_file_of(object, file));
    hid_t space = H5Aget_space(*attribute);
    hssize_t values = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    if (space >= 0) (void)H5Sclose(space);
    *type = H5Aget_type(*attribute);
    if (values == 1 && *type >= 0 && H5Tget_class(*type) == class) return FB3_OK;
    return fb3_h5_fail(FB3_INPUT, "attribute %s of %s is not of the expected type; the file is damaged or foreign",
                       name, fb3_h5_file_of(object, file));
}

static fb3_status read_number(hid_t object, const char *name, H5T_class_t class, hid_t memory_type, void *value)
{
    fb3_h5_start();
    char file[FB3_H5_NAME_BYTES];
    hid_t attribute, type;
    fb3_status status = open_attribute(object, name, class, &attribute, &type);
    if (status == FB3_OK && H5Aread(attribute, memory_type, value) < 0) {
        status = fb3_h5_fail(FB3_INPUT, "cannot read attribute %s of %s", name, fb3_h5_file_of(object, file));
    }
    if (type >= 0) (void)H5Tclose(type);
    if (attribute >= 0) (void)H5Aclose(attribute);
    return status;
}

static hid_t text_type(size_t bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0) return H5I_INVALID_HID;
    bool good = H5Tset_size(type, bytes) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 &&
                H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    if (good) return type;
    (void)H5Tclose(type);
    return H5I_INVALID_HID;
}

fb3_status fb3_h5_set_text(hid_t object, const char *name, const char *text)
{
    fb3_h5_start();
    size_t bytes = strlen(text);
    hid_t type = text_type(bytes > 0 ? bytes : 1);
    FB3_H5(type, FB3_FAILED, "cannot set up HDF5 for attribute %s", name);
    fb3_status status = write_attribute(object, name, type, text);
    (void)H5Tclose(type);
    return status;
}

static fb3_status read_fixed_text(hid_t attribute, hid_t type, size_t limit, char **text)
{
    size_t bytes = H5Tget_size(type);
    FB3_REQUIRE(bytes <= limit, FB3_INPUT, "the text is longer than %zu bytes", limit);
    char *fixed = calloc(bytes + 1, 1);
    FB3_REQUIRE(fixed, FB3_FAILED, "no memory for a text of %zu bytes", bytes);
    if (H5Aread(attribute, type, fixed) < 0) {
        free(fixed);
        return fb3_h5_fail(FB3_INPUT, "the text cannot be read");
    }
    *text = fixed;
    return FB3_OK;
}

/* Files edited in Python have texts of variable size. */
static fb3_status read_variable_text(hid_t attribute, hid_t type, size_t limit, char **text)
{
    char *variable = NULL;
    FB3_H5(H5Aread(attribute, type, &variable), FB3_INPUT, "the text cannot be read");
    fb3_status status = FB3_OK;
    if (variable && strlen(variable) > limit) {
        status = fb3_fail(FB3_INPUT, "the text is longer than %zu bytes", limit);
    } else {
        *text = strdup(variable ? variable : "");
        if (!*text) status = fb3_fail(FB3_FAILED, "no memory for a text");
    }
    (void)H5free_memory(variable);
    return status;
}

fb3_status fb3_h5_get_text(hid_t object, const char *name, size_t limit, char **text)
{
    fb3_h5_start();
    *text = NULL;
    char file[FB3_H5_NAME_BYTES];
    hid_t attribute, type;
    fb3_status status = open_attribute(object, name, H5T_STRING, &attribute, &type);
    if (status == FB3_OK) {
        status = H5Tis_variable_str(type) > 0 ? read_variable_text(attribute, type, limit, text)
                                              : read_fixed_text(attribute, type, limit, text);
        if (status != FB3_OK)
            status = fb3_fail_context(status, "attribute %s of %s", name, fb3_h5_file_of(object, file));
    }
    if (type >= 0) (void)H5Tclose(type);
    if (attribute >= 0) (void)H5Aclose(attribute);
    return status;
}

fb3_status fb3_h5_set_int(hid_t object, const char *name, int64_t value)
{
    fb3_h5_start();
    return write_attribute(object, name, H5T_NATIVE_INT64, &value);
}

fb3_status fb3_h5_get_int(hid_t object, const char *name, int64_t *value)
{
    return read_number(object, name, H5T_INTEGER, H5T_NATIVE_INT64, value);
}

fb3_status fb3_h5_set_double(hid_t object, const char *name, double value)
{
    fb3_h5_start();
    return write_attribute(object, name, H5T_NATIVE_DOUBLE, &value);
}

fb3_status fb3_h5_get_double(hid_t object, const char *name, double *value)
{
    return read_number(object, name, H5T_FLOAT, H5T_NATIVE_DOUBLE, value);
}
