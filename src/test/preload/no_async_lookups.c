/*
 * no_async_lookups.c: libcurl says that it was built without asynchronous lookups of
 * names.
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <dlfcn.h>

curl_version_info_data *
curl_version_info(CURLversion age)
{
	void	   *libcurl = dlopen("libcurl.so.4", RTLD_LAZY | RTLD_NOLOAD);
	curl_version_info_data *(*next) (CURLversion) = dlsym(libcurl, "curl_version_info");
	static curl_version_info_data info;

	info = *next(age);
	info.features &= ~CURL_VERSION_ASYNCHDNS;
	return &info;
}
