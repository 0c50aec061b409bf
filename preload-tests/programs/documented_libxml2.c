// flags: -I/usr/include/libxml2 -Wl,--no-as-needed -lxml2
// What php does in php/php-src#19704 and #19825, argv[1] times: xmlwriter_end_element with nothing open makes libxml2 2.9.14
// throw its list of namespaces away, so that the next xmlTextWriterStartElementNS cannot put its record there, and loses it.
#include <libxml/parser.h>
#include <libxml/xmlwriter.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    int refused = 0, started = 0;
    for (int left = atoi(argv[1]); left > 0; left--) {
        xmlBufferPtr buffer = xmlBufferCreate();
        xmlTextWriterPtr writer = xmlNewTextWriterMemory(buffer, 0);
        refused += xmlTextWriterEndElement(writer) < 0;
        started += xmlTextWriterStartElementNS(writer, BAD_CAST "ns1", BAD_CAST "child1", BAD_CAST "urn:ns1") >= 0;
        xmlFreeTextWriter(writer);
        xmlBufferFree(buffer);
    }
    xmlCleanupParser();
    printf("%d %d\n", refused, started);
    return 0;
}
