/*
 * sim_schema.c
 *	  Which bodies the provider accepts: tables of properties, and one walk over them.
 *
 * Refuses with 422 and one line for each fault, as the provider's validator does: where a required
 * property is missing, it calls the valid ones "not allowed" too. Rules that tie one property to
 * another are not here.
 */
#include <regex.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

typedef enum SimType
{
	TYPE_STRING,
	TYPE_STRING_OR_NULL,
	TYPE_CHOICE, /* one of the words in choices */
	TYPE_INTEGER,
	TYPE_BOOLEAN,
	TYPE_OBJECT,
	TYPE_STRING_MAP,
	TYPE_STRINGS,
	TYPE_VERSION,
	TYPE_VERSIONS,
	TYPE_OBJECTS
} SimType;

typedef enum SimNeed
{
	OPTIONAL,
	REQUIRED,
	UNLESS_TEMPLATE /* required where there is no templateId */
} SimNeed;

typedef struct SimField
{
	const char *name;
	SimType type;
	SimNeed need;
	int least; /* least value, or length of a string */
	int most;  /* most elements; 0: no limit */
	const char *choices;
	const struct SimField *fields; /* of the object, or of each in the array */
} SimField;

static const SimField gpu_fields[] = {
	{ .name = "id", .type = TYPE_STRING, .need = REQUIRED },
	{ .name = "count", .type = TYPE_INTEGER, .least = 1 },
	{ .name = "allowedCudaVersions", .type = TYPE_VERSIONS },
	{ .name = "minCudaVersion", .type = TYPE_VERSION },
	{ .name = "minRamPerGpu", .type = TYPE_INTEGER, .least = 1 },
	{ .name = "minVcpuCountPerGpu", .type = TYPE_INTEGER, .least = 1 },
	{ 0 },
};

static const SimField cpu_fields[] = {
	{ .name = "id", .type = TYPE_STRING, .need = REQUIRED, .least = 1 },
	{ .name = "vcpuCount", .type = TYPE_INTEGER, .need = REQUIRED, .least = 2 },
	{ 0 },
};

static const SimField persistent_fields[] = {
	{ .name = "size", .type = TYPE_INTEGER, .need = REQUIRED, .least = 10 },
	{ .name = "path", .type = TYPE_STRING, .need = REQUIRED },
	{ 0 },
};

static const SimField network_fields[] = {
	{ .name = "volumeId", .type = TYPE_STRING, .need = REQUIRED },
	{ .name = "path", .type = TYPE_STRING, .need = REQUIRED },
	{ 0 },
};

static const SimField mount_fields[] = {
	{ .name = "persistent", .type = TYPE_OBJECT, .fields = persistent_fields },
	{ .name = "network", .type = TYPE_OBJECTS, .most = 1, .fields = network_fields },
	{ 0 },
};

#define CONTAINER_FIELDS \
	{ .name = "args", .type = TYPE_STRING }, { .name = "disk", .type = TYPE_INTEGER, .least = 1 }, \
		{ .name = "env", .type = TYPE_STRING_MAP }, { .name = "ports", .type = TYPE_STRINGS }, \
		{ .name = "registry", .type = TYPE_STRING_OR_NULL }, \
		{ .name = "globalNetworking", .type = TYPE_BOOLEAN }, \
	{ \
		.name = "mounts", .type = TYPE_OBJECT, .fields = mount_fields \
	}

static const SimField create_fields[] = {
	{ .name = "name", .type = TYPE_STRING, .need = REQUIRED, .least = 1 },
	{ .name = "image", .type = TYPE_STRING, .need = UNLESS_TEMPLATE },
	{ .name = "templateId", .type = TYPE_STRING, .least = 1 },
	{ .name = "gpu", .type = TYPE_OBJECT, .fields = gpu_fields },
	{ .name = "cpu", .type = TYPE_OBJECT, .fields = cpu_fields },
	{ .name = "cloud", .type = TYPE_CHOICE, .choices = "SECURE COMMUNITY" },
	{ .name = "dataCenterIds", .type = TYPE_STRINGS },
	{ .name = "startSsh", .type = TYPE_BOOLEAN },
	{ .name = "startJupyter", .type = TYPE_BOOLEAN },
	{ .name = "cmd", .type = TYPE_STRINGS },
	{ .name = "entrypoint", .type = TYPE_STRINGS },
	CONTAINER_FIELDS,
	{ 0 },
};

static const SimField update_fields[] = {
	{ .name = "name", .type = TYPE_STRING, .least = 1 },
	{ .name = "image", .type = TYPE_STRING },
	{ .name = "templateId", .type = TYPE_STRING },
	{ .name = "locked", .type = TYPE_BOOLEAN },
	CONTAINER_FIELDS,
	{ 0 },
};

static const SimField action_fields[] = {
	{ .name = "action",
	  .type = TYPE_CHOICE,
	  .need = REQUIRED,
	  .choices = "start stop restart terminate" },
	{ 0 },
};

static void check_object(const SimField *fields, const json_t *object, const char *path,
						 json_t *errors);

/* Add a line about the value at path. */
static void
complain(json_t *errors, const char *path, const char *what)
{
	json_array_append_new(errors, json_sprintf("%s: %s", path, what));
}

/* Is it a version as in "12.8"? */
static bool
is_version(const json_t *value)
{
	regex_t pattern;
	bool matches;

	if (!json_is_string(value) ||
		regcomp(&pattern, "^[0-9]+\\.[0-9]+$", REG_EXTENDED | REG_NOSUB) != 0)
		return false;
	matches = regexec(&pattern, json_string_value(value), 0, NULL, 0) == 0;
	regfree(&pattern);
	return matches;
}

/* Say that a value is none of the choices: '...', '...'. */
static void
complain_choice(const SimField *field, const char *path, json_t *errors)
{
	char list[256] = "";
	char words[128];
	char *state = NULL;

	snprintf(words, sizeof(words), "%s", field->choices);
	for (char *word = strtok_r(words, " ", &state); word != NULL;
		 word = strtok_r(NULL, " ", &state))
	{
		size_t len = strlen(list);

		snprintf(list + len, sizeof(list) - len, "%s'%s'", len > 0 ? ", " : "", word);
	}
	json_array_append_new(errors, json_sprintf("%s: value must be one of %s", path, list));
}

/* Check each element of an array, as strings, versions or objects. */
static void
check_elements(const SimField *field, const json_t *array, const char *path, json_t *errors)
{
	json_t *element;
	size_t i;

	if (!json_is_array(array))
	{
		complain(errors, path, "value must be an array");
		return;
	}
	if (field->most > 0 && json_array_size(array) > (size_t) field->most)
		complain(errors, path, "value has too many elements");
	json_array_foreach(array, i, element)
	{
		char place[256];

		snprintf(place, sizeof(place), "%.200s[%zu]", path, i);
		if (field->type == TYPE_STRINGS && !json_is_string(element))
			complain(errors, place, "value must be a string");
		else if (field->type == TYPE_VERSIONS && !is_version(element))
			complain(errors, place, "value must be a version such as 12.8");
		else if (field->type == TYPE_OBJECTS)
			check_object(field->fields, element, place, errors);
	}
}

/* Check that all values of an object are strings. */
static void
check_map(const json_t *object, const char *path, json_t *errors)
{
	const char *key;
	json_t *value;

	if (!json_is_object(object))
		complain(errors, path, "value must be an object");
	json_object_foreach((json_t *) object, key, value)
	{
		if (!json_is_string(value))
			json_array_append_new(errors, json_sprintf("%s.%s: value must be a string", path, key));
	}
}

/* Check one property that is there. */
static void
check_value(const SimField *field, const json_t *value, const char *path, json_t *errors)
{
	switch (field->type)
	{
		case TYPE_STRING_OR_NULL:
			if (json_is_null(value))
				break;
			/* FALLTHROUGH */
		case TYPE_STRING:
			if (!json_is_string(value))
				complain(errors, path, "value must be a string");
			else if (json_string_length(value) < (size_t) field->least)
				complain(errors, path, "value must not be empty");
			break;
		case TYPE_CHOICE:
			if (!json_is_string(value) || !sim_word_in(json_string_value(value), field->choices))
				complain_choice(field, path, errors);
			break;
		case TYPE_INTEGER:
			if (!json_is_integer(value))
				complain(errors, path, "value must be an integer");
			else if (json_integer_value(value) < field->least)
				json_array_append_new(
					errors, json_sprintf("%s: value must be at least %d", path, field->least));
			break;
		case TYPE_BOOLEAN:
			if (!json_is_boolean(value))
				complain(errors, path, "value must be a boolean");
			break;
		case TYPE_VERSION:
			if (!is_version(value))
				complain(errors, path, "value must be a version such as 12.8");
			break;
		case TYPE_OBJECT:
			check_object(field->fields, value, path, errors);
			break;
		case TYPE_STRING_MAP:
			check_map(value, path, errors);
			break;
		case TYPE_STRINGS:
		case TYPE_VERSIONS:
		case TYPE_OBJECTS:
			check_elements(field, value, path, errors);
			break;
	}
}

/* The table's row of a property, or NULL. */
static const SimField *
find_field(const SimField *fields, const char *name)
{
	for (const SimField *field = fields; field->name != NULL; field++)
		if (strcmp(field->name, name) == 0)
			return field;
	return NULL;
}

/* Check an object against its table; path is where it stands in the body. */
static void
check_object(const SimField *fields, const json_t *object, const char *path, json_t *errors)
{
	bool missing = false;
	char extra[2048] = "";
	const char *key;
	json_t *value;

	if (!json_is_object(object))
	{
		complain(errors, path, "value must be an object");
		return;
	}
	for (const SimField *field = fields; field->name != NULL; field++)
	{
		if (json_object_get(object, field->name) != NULL || field->need == OPTIONAL ||
			(field->need == UNLESS_TEMPLATE && json_object_get(object, "templateId") != NULL))
			continue;
		json_array_append_new(errors, json_sprintf("%s: missing property '%s'", path, field->name));
		missing = true;
	}
	json_object_foreach((json_t *) object, key, value)
	{
		const SimField *field = find_field(fields, key);
		size_t len = strlen(extra);
		char place[256];

		if (field == NULL || missing)
			snprintf(extra + len, sizeof(extra) - len, "%s'%s'", len > 0 ? ", " : "", key);
		if (field == NULL)
			continue;
		snprintf(place, sizeof(place), "%.100s.%.100s", path, key);
		check_value(field, value, place, errors);
	}
	if (extra[0] != '\0')
		json_array_append_new(
			errors, json_sprintf("%s: additional properties %s not allowed", path, extra));
}

/* Check a body; true if it holds, otherwise the request is answered. */
static bool
check_body(SimRequest *request, const SimField *fields)
{
	json_t *errors;

	if (request->json == NULL)
	{
		sim_fail(request, 400, "The request body is not valid JSON.", NULL);
		return false;
	}
	errors = json_array();
	check_object(fields, request->json, "$", errors);
	if (json_array_size(errors) == 0)
	{
		json_decref(errors);
		return true;
	}
	sim_fail(request, 422, "Request validation failed.", errors);
	return false;
}

/* The body of a create. */
bool
sim_schema_create(SimRequest *request)
{
	return check_body(request, create_fields);
}

/* The body of an update. */
bool
sim_schema_update(SimRequest *request)
{
	return check_body(request, update_fields);
}

/* The body of an action. */
bool
sim_schema_action(SimRequest *request)
{
	return check_body(request, action_fields);
}
